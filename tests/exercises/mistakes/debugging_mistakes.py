"""Wrong answers to the exercises on debugging."""

import copy
import math

import torch
from planting import mistake
from torch import nn
from torch.nn import functional as F


def gradients(model, inputs, targets, loss_fn):
    model = copy.deepcopy(model).train()
    model.zero_grad()
    loss_fn(model(inputs), targets).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@mistake("debugging.gradient_norm", says="adds the norms of the tensors")
def sum_of_norms(*args):
    return sum(g.norm().item() for g in gradients(*args))


@mistake("debugging.gradient_norm", says="averages the norms")
def mean_of_norms(*args):
    parts = gradients(*args)
    return sum(g.norm().item() for g in parts) / len(parts)


@mistake("debugging.gradient_norm", says="largest norm of a tensor")
def largest_norm(*args):
    return max(g.norm().item() for g in gradients(*args))


@mistake("debugging.gradient_norm", says="the root is missing")
def squared_norm(*args):
    return sum(g.square().sum().item() for g in gradients(*args))


@mistake("debugging.gradient_norm", says="L1 norm")
def absolute_norm(*args):
    return sum(g.abs().sum().item() for g in gradients(*args))


@mistake("debugging.gradient_norm", says="root of the mean square")
def rms_of_gradients(*args):
    return torch.cat([g.flatten() for g in gradients(*args)]).square().mean().sqrt().item()


@mistake("debugging.gradient_norm", says="leaves the biases out")
def weights_only(*args):
    return math.hypot(*(g.norm().item() for g in gradients(*args) if g.ndim > 1))


@mistake("debugging.gradient_norm", says="what lies in .grad")
def leaves_gradients(model, inputs, targets, loss_fn):
    modes = [m.training for m in model.modules()]
    buffers = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    loss_fn(model(inputs), targets).backward()
    model.load_state_dict(buffers)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return math.hypot(*(p.grad.norm().item() for p in model.parameters() if p.grad is not None))


@mistake("debugging.gradient_norm", says="running statistics of the batch norm")
def moves_the_statistics(model, inputs, targets, loss_fn):
    model.train()
    loss = loss_fn(model(inputs), targets)
    parts = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    return math.hypot(*(g.norm().item() for g in parts if g is not None))


@mistake("debugging.gradient_norm", says="in another mode")
def leaves_train_mode(model, *rest):
    model.train()
    return math.hypot(*(g.norm().item() for g in gradients(model, *rest)))


@mistake("debugging.gradient_norm", says="changes the weights")
def trains_the_model(model, inputs, targets, loss_fn):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.01)
    return math.hypot(*(g.norm().item() for g in gradients(model, inputs, targets, loss_fn)))


@mistake("debugging.gradient_norm", says="measures in eval mode")
def in_eval_mode(model, inputs, targets, loss_fn):
    model = copy.deepcopy(model).eval()
    model.zero_grad()
    loss_fn(model(inputs), targets).backward()
    return math.hypot(*(p.grad.norm().item() for p in model.parameters() if p.grad is not None))


@mistake("debugging.gradient_norm", says="leaves the old gradients in")
def adds_to_old_gradients(model, inputs, targets, loss_fn):
    copied = copy.deepcopy(model).train()
    for p, old in zip(copied.parameters(), model.parameters(), strict=True):
        p.grad = None if old.grad is None else old.grad.clone()
    loss_fn(copied(inputs), targets).backward()
    return math.hypot(*(p.grad.norm().item() for p in copied.parameters() if p.grad is not None))


@mistake("debugging.gradient_norm", says="raises AttributeError .* 'NoneType'")
def forgets_unused_layers(model, inputs, targets, loss_fn):
    model = copy.deepcopy(model).train()
    loss_fn(model(inputs), targets).backward()
    return math.hypot(*(p.grad.norm().item() for p in model.parameters()))


def clip(parameters, max_norm, *, length=None, always=False, back=None, factor=None):
    """A right clipping with one part replaced."""
    parts = [p.grad for p in parameters if p.grad is not None]
    total = math.hypot(*(g.norm().item() for g in parts))
    long = total if length is None else length(parts)
    if long > max_norm or (always and long):
        for g in parts:
            g.mul_(max_norm / long if factor is None else factor(long, max_norm))
    return total if back is None else back(parts, total, max_norm)


@mistake("debugging.clip_gradients", says="clips each tensor on its own")
def each_on_its_own(parameters, max_norm):
    parts = [p.grad for p in parameters if p.grad is not None]
    total = math.hypot(*(g.norm().item() for g in parts))
    for g in parts:
        g.mul_(min(1.0, max_norm / (g.norm().item() + 1e-12)))
    return total


@mistake("debugging.clip_gradients", says="clips each number on its own")
def clamps(parameters, max_norm):
    parts = [p.grad for p in parameters if p.grad is not None]
    total = math.hypot(*(g.norm().item() for g in parts))
    for g in parts:
        g.clamp_(-max_norm, max_norm)
    return total


@mistake("debugging.clip_gradients", says="scales short gradients up")
def always_scales(parameters, max_norm):
    return clip(parameters, max_norm, always=True)


@mistake("debugging.clip_gradients", says="compares with the sum of the norms")
def by_the_sum(parameters, max_norm):
    return clip(parameters, max_norm, length=lambda parts: sum(g.norm().item() for g in parts))


@mistake("debugging.clip_gradients", says="compares with the largest norm")
def by_the_largest(parameters, max_norm):
    return clip(parameters, max_norm, length=lambda parts: max(g.norm().item() for g in parts))


@mistake("debugging.clip_gradients", says="forgets the root")
def by_the_square(parameters, max_norm):
    return clip(parameters, max_norm, length=lambda parts: sum(g.square().sum().item() for g in parts))


@mistake("debugging.clip_gradients", says="forgets max_norm")
def to_length_one(parameters, max_norm):
    return clip(parameters, max_norm, factor=lambda total, _: 1 / total)


@mistake("debugging.clip_gradients", says="changes no gradient")
def scales_a_copy(parameters, max_norm):
    parts = [p.grad for p in parameters if p.grad is not None]
    total = math.hypot(*(g.norm().item() for g in parts))
    for g in parts:
        g = g * max_norm / total
    return total


@mistake("debugging.clip_gradients", says="changes the parameters")
def scales_the_weights(parameters, max_norm):
    parameters = list(parameters)
    with torch.no_grad():
        for p in parameters:
            p.add_(1.0)
    return clip(parameters, max_norm)


@mistake("debugging.clip_gradients", says="the norm after clipping")
def returns_the_norm_after(parameters, max_norm):
    return clip(parameters, max_norm, back=lambda parts, total, limit: math.hypot(*(g.norm().item() for g in parts)))


@mistake("debugging.clip_gradients", says="returns the sum of the norms")
def returns_the_sum(parameters, max_norm):
    parameters = list(parameters)
    total = sum(p.grad.norm().item() for p in parameters if p.grad is not None)
    clip(parameters, max_norm)
    return total


@mistake("debugging.clip_gradients", says="raises AttributeError")
def none_has_no_norm(parameters, max_norm):
    parameters = list(parameters)
    total = math.hypot(*(p.grad.norm().item() for p in parameters))
    clip(parameters, max_norm)
    return total


@mistake("debugging.clip_gradients", says="returns None")
def returns_nothing(parameters, max_norm):
    clip(parameters, max_norm)


@mistake("debugging.clip_gradients", says="zero.* nan")
def divides_by_zero(parameters, max_norm):
    parts = [p.grad for p in parameters if p.grad is not None]
    total = torch.cat([g.flatten() for g in parts]).norm()
    for g in parts:
        g.mul_(torch.where(total > max_norm, max_norm / total, total / total))
    return total.item()


def look(model, layer, images, read):
    """What `read` makes of the layer's output, by a hook that goes."""
    found = []
    handle = layer.register_forward_hook(lambda module, inputs, output: found.append(read(output.detach())))
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    return found[0]


def indices(truths):
    return truths.nonzero().flatten().tolist()


def by_unit(output):
    return output.transpose(0, 1).flatten(1)


@mistake("debugging.dead_units", says="lists the units that are alive")
def alive_units(*args):
    return look(*args, lambda out: indices((by_unit(out) != 0).any(dim=1)))


@mistake("debugging.dead_units", says="returns true and false")
def truths(*args):
    return look(*args, lambda out: (by_unit(out) == 0).all(dim=1).tolist())


@mistake("debugging.dead_units", says="zero somewhere")
def zero_somewhere(*args):
    return look(*args, lambda out: indices((by_unit(out) == 0).any(dim=1)))


@mistake("debugging.dead_units", says="first sample alone")
def first_sample(*args):
    return look(*args, lambda out: indices((by_unit(out[:1]) == 0).all(dim=1)))


@mistake("debugging.dead_units", says="looks at the mean")
def by_the_mean(*args):
    return look(*args, lambda out: indices(by_unit(out).mean(dim=1).abs() < 1e-7))


@mistake("debugging.dead_units", says="calls negative values dead")
def negative_is_dead(*args):
    return look(*args, lambda out: indices((by_unit(out) <= 0).all(dim=1)))


@mistake("debugging.dead_units", says="after the ReLU has written over them")
def looks_too_late(model, layer, images):
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    return indices((by_unit(kept[0]) == 0).all(dim=1))


@mistake("debugging.dead_units", says="same everywhere")
def constant_units(*args):
    return look(*args, lambda out: indices(by_unit(out).std(dim=1) < 1e-7))


@mistake("debugging.dead_units", says="lists the samples")
def samples(*args):
    return look(*args, lambda out: indices((out.flatten(1) == 0).all(dim=1)))


@mistake("debugging.dead_units", says="last axis")
def last_axis(*args):
    return look(*args, lambda out: indices((out.movedim(-1, 0).flatten(1) == 0).all(dim=1)))


@mistake("debugging.dead_units", says="counts them")
def count(*args):
    return look(*args, lambda out: int((by_unit(out) == 0).all(dim=1).sum()))


@mistake("debugging.dead_units", says="returns their share")
def share(*args):
    return look(*args, lambda out: (by_unit(out) == 0).all(dim=1).float().mean().item())


@mistake("debugging.dead_units", says="features .* leaves its hook on the layer")
def hook_stays(model, layer, images):
    found = []
    layer.register_forward_hook(lambda m, i, out: found.append(indices((by_unit(out) == 0).all(dim=1))))
    with torch.no_grad():
        model(images)
    return found[0]


@mistake("debugging.dead_units", says="inputs of a wrong size.* leaves its hook")
def hook_stays_after_an_error(model, layer, images):
    found = []
    handle = layer.register_forward_hook(lambda m, i, out: found.append(indices((by_unit(out) == 0).all(dim=1))))
    with torch.no_grad():
        model(images)
    handle.remove()
    return found[0]


@mistake("debugging.dead_units", says="leaves the model in train mode")
def changes_the_mode(model, layer, images):
    found = look(model, layer, images, lambda out: indices((by_unit(out) == 0).all(dim=1)))
    model.train()
    return found


@mistake("debugging.dead_units", says="ran 3 times")
def one_pass_an_image(model, layer, images):
    parts = [set(look(model, layer, image[None], lambda out: indices((by_unit(out) == 0).all(dim=1)))) for image in images]
    return sorted(set.intersection(*parts))


def step(model, images, labels, optimizer, max_norm, **faults):
    """A right step in which one statement is replaced by a fault."""
    if "mode" not in faults:
        model.train()
    if "zero" not in faults:
        optimizer.zero_grad()
    outputs = model(images)
    loss = faults.get("loss", F.cross_entropy)(outputs, labels)
    loss.backward()
    if faults.get("zero") == "late":
        optimizer.zero_grad()
    clipped = faults.get("clip", lambda parameters, limit: nn.utils.clip_grad_norm_(parameters, limit))
    if not faults.get("clip_late"):
        clipped(list(model.parameters()), max_norm)
    if "step" not in faults:
        optimizer.step()
    if faults.get("clip_late"):
        clipped(list(model.parameters()), max_norm)
    return loss.item()


def broken(name, says, **faults):
    def answer(model, images, labels, optimizer, max_norm):
        return step(model, images, labels, optimizer, max_norm, **faults)

    answer.__name__ = name
    mistake("debugging.training_step", says=says)(answer)


def softmax_loss(outputs, labels):
    return F.cross_entropy(outputs.softmax(dim=1), labels)


def each(parameters, limit):
    for parameter in parameters:
        nn.utils.clip_grad_norm_(parameter, limit)


broken("stays_in_eval_mode", r"ran in eval mode: call model.train\(\)", mode="kept")
broken("no_zero", "never sets the gradients to zero", zero="never")
broken("zero_too_late", r"or the gradients are zero when it comes. Given three steps with SGD, max_norm=0.3, on a model in eval mode, the w", zero="late")
broken("softmax_first", "takes a softmax before the loss", loss=softmax_loss)
broken("no_clip", "does not clip, or only", clip=lambda parameters, limit: None)
broken("clip_after_the_step", "It does not clip, or only after the step", clip_late=True)
broken("clip_each", "clips each tensor on its own, which turns", clip=each)
broken("clip_values", "clips each number", clip=nn.utils.clip_grad_value_)
broken("no_step", r"changes nothing: optimizer.step\(\) is missing", step="never")
broken("softmax_and_no_zero", "takes a softmax before the loss.*; and it never sets the gradients", loss=softmax_loss, zero="never")
broken("no_zero_and_clip_late", "never sets .*; and it (clips after|does not clip, or only)", zero="never", clip_late=True)
broken("summed", "sums the loss (it returns|over the batch)", loss=lambda o, y: F.cross_entropy(o, y, reduction="sum"))


@mistake("debugging.training_step", says="with its graph attached")
def returns_the_graph(model, images, labels, optimizer, max_norm):
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss


@mistake("debugging.training_step", says="returns None")
def returns_no_loss(*args):
    step(*args)


@mistake("debugging.training_step", says="the model ran 6 times")
def runs_twice(model, images, labels, optimizer, max_norm):
    step(model, images, labels, optimizer, max_norm)
    return F.cross_entropy(model(images), labels).item()


class Net(nn.Module):
    """A right network whose parts the mistakes replace."""

    def __init__(self, channels, blocks, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = self.hold([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks)])
        self.head = nn.Linear(channels, classes)

    def hold(self, blocks):
        return nn.ModuleList(blocks)

    def scale(self, images):
        return (images - 127.5) / 127.5

    def lay(self, x):
        return x.permute(0, 3, 1, 2)

    def add(self, x, block):
        return x + F.relu(block(x))

    def drop(self, x):
        return F.dropout(x, 0.5, self.training)

    def pool(self, x):
        return x.mean(dim=(2, 3))

    def finish(self, x):
        return self.head(x)

    def forward(self, images):
        x = self.stem(self.lay(self.scale(images)))
        for block in self.blocks:
            x = self.add(x, block)
        return self.finish(self.drop(self.pool(x)))


def in_place(self, images):
    images -= 127.5
    images /= 127.5
    return images


NETWORKS = {
    "PlainList": ("use nn.ModuleList", {"hold": lambda self, blocks: blocks}),
    "Reshaped": (r"mixes pixels and colours: permute", {"lay": lambda self, x: x.reshape(x.shape[0], 3, *x.shape[1:3])}),
    "Swapped": ("swaps height and width", {"lay": lambda self, x: x.transpose(1, 3)}),
    "Detached": ("no gradient reaches blocks.0.weight", {"add": lambda self, x, block: x + F.relu(block(x)).detach()}),
    "CutBefore": ("no gradient reaches stem.weight|cuts the graph", {"add": lambda self, x, block: x.data + F.relu(block(x.data))}),
    "AlwaysDrops": ("answers otherwise the second time in eval mode", {"drop": lambda self, x: F.dropout(x, 0.5)}),
    "NeverDrops": ("the dropout is missing", {"drop": lambda self, x: x}),
    "Unscaled": ("does not scale 0 … 255", {"scale": lambda self, x: x}),
    "ZeroToOne": ("scales to 0 … 1", {"scale": lambda self, x: x / 255}),
    "BatchMean": ("this batch's own mean", {"scale": lambda self, x: x - x.mean()}),
    "Softmax": ("ends in a softmax: the loss wants logits", {"finish": lambda self, x: self.head(x).softmax(dim=1)}),
    "LogSoftmax": ("ends in a log_softmax", {"finish": lambda self, x: self.head(x).log_softmax(dim=1)}),
    "SoftmaxReshaped": ("mixes pixels and colours: .*, and ends in a softmax|to .B, 3, H, W., and ends in a softmax", {
        "finish": lambda self, x: self.head(x).softmax(dim=1), "lay": lambda self, x: x.reshape(x.shape[0], 3, *x.shape[1:3])}),
    "InPlace": ("It changes its input", {"scale": in_place}),
    "NoSkip": ("leaves the skip connection out", {"add": lambda self, x, block: F.relu(block(x))}),
    "ReluAfter": ("adds before the ReLU", {"add": lambda self, x, block: F.relu(x + block(x))}),
    "NoRelu": ("leaves the ReLU out", {"add": lambda self, x, block: x + block(x)}),
    "MaxPool": ("the largest value of a map", {"pool": lambda self, x: x.amax(dim=(2, 3))}),
    "Unkept": ("the mean of its answers in train mode", {"drop": lambda self, x: x * (torch.rand_like(x) < 0.5) if self.training else x}),
}  # fmt: skip

for name, (says, parts) in NETWORKS.items():
    mistake("debugging.network", says=says)(type(name, (Net,), parts))


@mistake("debugging.network", says=r"its parameters are \['conv.weight'")
class OtherNames(nn.Module):
    def __init__(self, channels, blocks, classes):
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 3)

    def forward(self, images):
        return self.conv(images.permute(0, 3, 1, 2)).mean(dim=(2, 3))

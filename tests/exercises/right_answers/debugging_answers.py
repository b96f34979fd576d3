"""Right answers to the exercises on debugging, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch import nn
from torch.nn import functional as F


@right_answer("debugging.gradient_norm")
def norm_by_functional_call(model, inputs, targets, loss_fn):
    modes = [m.training for m in model.modules()]
    model.train()
    parameters = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    loss = loss_fn(torch.func.functional_call(model, {**parameters, **buffers}, (inputs,)), targets)
    wanted = [p for p in parameters.values() if p.requires_grad]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return sum(float((g**2).sum()) for g in found if g is not None) ** 0.5


@right_answer("debugging.gradient_norm")
def norm_by_clipping_a_copy(model, inputs, targets, loss_fn):
    import copy

    copied = copy.deepcopy(model)
    copied.train()
    for p in copied.parameters():
        p.grad = None
    loss_fn(copied(inputs), targets).backward()
    return nn.utils.clip_grad_norm_(copied.parameters(), math.inf)


@right_answer("debugging.gradient_norm")
def norm_and_everything_put_back(model, inputs, targets, loss_fn):
    modes = {m: m.training for m in model.modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    old = [p.grad for p in model.parameters()]
    try:
        model.train()
        model.zero_grad(set_to_none=True)
        loss_fn(model(inputs), targets).backward()
        return np.linalg.norm(np.concatenate([p.grad.numpy().ravel() for p in model.parameters() if p.grad is not None]))
    finally:
        model.load_state_dict(state)
        for p, grad in zip(model.parameters(), old, strict=True):
            p.grad = grad
        for module, mode in modes.items():
            module.training = mode


@right_answer("debugging.clip_gradients")
def clip_by_torch(parameters, max_norm):
    return nn.utils.clip_grad_norm_(parameters, max_norm)


@right_answer("debugging.clip_gradients")
def clip_with_new_tensors(parameters, max_norm):
    parameters = [p for p in parameters if p.grad is not None]
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))
    factor = min(1.0, max_norm / total) if total else 1.0
    for p in parameters:
        p.grad = factor * p.grad
    return total


@right_answer("debugging.clip_gradients")
@torch.no_grad()
def clip_by_foreach(parameters, max_norm):
    parts = [p.grad for p in parameters if p.grad is not None]
    total = torch.linalg.vector_norm(torch.stack([n.double() for n in torch._foreach_norm(parts)]))
    torch._foreach_mul_(parts, float(torch.clamp(max_norm / (total + 1e-9), max=1.0)))
    return total


@right_answer("debugging.dead_units")
def dead_by_numpy(model, layer, images):
    found = []

    def hook(module, inputs, output):
        values = np.moveaxis(output.detach().numpy(), 1, 0)
        found.extend(i for i, unit in enumerate(values) if not np.any(unit))

    handle = layer.register_forward_hook(hook)
    try:
        model(images)
    finally:
        handle.remove()
    return found


@right_answer("debugging.dead_units")
def dead_by_a_copy_of_the_output(model, layer, images):
    kept = {}
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.update(out=output.clone()))
    try:
        with torch.inference_mode():
            model(images)
    finally:
        handle.remove()
    largest = kept["out"].abs().transpose(0, 1).reshape(kept["out"].shape[1], -1).amax(1)
    return [i for i, value in enumerate(largest.tolist()) if value == 0]


@right_answer("debugging.dead_units")
def dead_by_counting(model, layer, images):
    from contextlib import ExitStack

    counts = []
    with ExitStack() as stack, torch.no_grad():
        stack.callback(layer.register_forward_hook(lambda m, i, out: counts.append(out.count_nonzero([d for d in range(out.ndim) if d != 1]))).remove)
        model(images)
    return torch.where(counts[0] == 0)[0].tolist()


@right_answer("debugging.training_step")
def step_that_clears_at_the_end(model, images, labels, optimizer, max_norm):
    model.train(True)
    model.zero_grad()
    loss = nn.CrossEntropyLoss()(model(images), labels)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss)


@right_answer("debugging.training_step")
def step_by_hand(model, images, labels, optimizer, max_norm):
    model.train()
    parameters = list(model.parameters())
    loss = F.nll_loss(F.log_softmax(model(images), dim=1), labels)
    found = torch.autograd.grad(loss, parameters)
    total = torch.cat([g.flatten() for g in found]).norm()
    for p, g in zip(parameters, found, strict=True):
        p.grad = g * torch.clamp(max_norm / total, max=1.0)
    optimizer.step()
    return loss.detach()


@right_answer("debugging.training_step")
def step_by_a_closure(model, images, labels, optimizer, max_norm):
    model.train()

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        return loss

    return optimizer.step(closure).item()


@right_answer("debugging.network")
class NetOfModules(nn.Module):
    def __init__(self, channels, blocks, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding="same")
        self.blocks = nn.Sequential(*[nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(blocks)])
        self.pool, self.dropout, self.relu = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.ReLU(inplace=True)
        self.head = nn.Linear(channels, classes)

    def forward(self, images):
        x = self.stem(((images / 255) - 0.5).div(0.5).movedim(-1, 1))
        for block in self.blocks:
            x = x + self.relu(block(x))
        return self.head(self.dropout(self.pool(x).flatten(1)))


@right_answer("debugging.network")
class NetByEinsum(nn.Module):
    def __init__(self, channels, blocks, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            self.blocks.append(nn.Conv2d(channels, channels, kernel_size=3, padding=1))
        self.head = nn.Linear(channels, classes)

    def forward(self, images):
        x = torch.einsum("bhwc->bchw", images.clone().sub_(127.5).div_(127.5)).contiguous()
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x).clamp(min=0)
        pooled = torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3])
        if self.training:
            pooled = pooled * torch.bernoulli(torch.full_like(pooled, 0.5)) / 0.5
        return F.linear(pooled, self.head.weight, self.head.bias)


@right_answer("debugging.network")
class NetWithDroppedMaps(nn.Module):
    def __init__(self, channels, blocks, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks)])
        self.head = nn.Linear(channels, classes)
        self.register_buffer("middle", torch.tensor(127.5))

    def forward(self, images):
        x = self.stem(torch.stack(list(((images - self.middle) / self.middle).unbind(3)), dim=1))
        for index in range(len(self.blocks)):
            x = torch.relu(self.blocks[index](x)).add(x)
        return self.head(F.dropout2d(x, 0.5, self.training).mean(-1).mean(-1))

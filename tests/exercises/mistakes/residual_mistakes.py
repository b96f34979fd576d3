"""Wrong answers to the exercises on the residual block."""

import copy

from planting import mistake
from torch import nn
from torch.nn import functional as F


def branch(b, x):
    return b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x)))))


def shortcut(b, x):
    return x if b.downsample is None else b.downsample(x)


def needs_projection(in_channels, channels, stride):
    return stride != 1 or in_channels != channels


def block(
    forward=lambda b, x: F.relu(branch(b, x) + shortcut(b, x)),
    projected=needs_projection,
    projection=lambda i, c, s: nn.Sequential(nn.Conv2d(i, c, 1, stride=s, bias=False), nn.BatchNorm2d(c)),
    bias=False,
    padding=1,
    strides=lambda s: (s, 1),
    kernel=3,
    norm=nn.BatchNorm2d,
    default_stride=1,
):
    """The basic block as a class, with one part of it replaced."""

    class Block(nn.Module):
        def __init__(self, in_channels, channels, *, stride=default_stride):
            super().__init__()
            first, second = strides(stride)
            self.conv1 = nn.Conv2d(in_channels, channels, kernel, stride=first, padding=padding, bias=bias)
            self.bn1 = norm(channels)
            self.conv2 = nn.Conv2d(channels, channels, kernel, stride=second, padding=padding, bias=bias)
            self.bn2 = norm(channels)
            self.downsample = None
            if projected(in_channels, channels, stride):
                self.downsample = projection(in_channels, channels, stride)

        def forward(self, x):
            return forward(self, x)

    return Block


def plant(says, name, **parts):
    wrong = block(**parts)
    wrong.__name__ = name
    mistake("residual.basic_block", says=says)(wrong)


def adds_in_place(b, x):
    out = branch(b, x)
    if b.downsample is not None:
        return F.relu(out + b.downsample(x))
    x += out
    return F.relu(x)


def pre_activation(b, x):
    return b.conv2(F.relu(b.bn2(b.conv1(F.relu(b.bn1(x)))))) + shortcut(b, x)


def shortcut_without_gradient(b, x):
    return F.relu(branch(b, x) + shortcut(b, x).detach())


plant("forgets the shortcut", "plain_block", forward=lambda b, x: F.relu(branch(b, x)))
plant("has no ReLU after the addition", "no_last_relu", forward=lambda b, x: branch(b, x) + shortcut(b, x))
plant(
    "applies the last ReLU before the addition; it belongs after", "relu_before_adding",
    forward=lambda b, x: F.relu(branch(b, x)) + shortcut(b, x),
)
plant(
    "applies a ReLU before the addition too", "relu_before_and_after",
    forward=lambda b, x: F.relu(F.relu(branch(b, x)) + shortcut(b, x)),
)
plant(
    "applies a ReLU to the shortcut", "relu_on_both_before_adding",
    forward=lambda b, x: F.relu(branch(b, x) + F.relu(shortcut(b, x))),
)
plant(
    "has no ReLU between the two convolutions", "no_relu_inside",
    forward=lambda b, x: F.relu(b.bn2(b.conv2(b.bn1(b.conv1(x)))) + shortcut(b, x)),
)
plant("has its stride in conv2", "stride_in_conv2", strides=lambda s: (1, s))
plant(
    "takes the shortcut after conv1", "shortcut_after_conv1",
    forward=lambda b, x: F.relu(branch(b, x) + F.relu(b.bn1(b.conv1(x)))),
)
plant("adds the shortcut twice", "twice", forward=lambda b, x: F.relu(branch(b, x) + 2 * shortcut(b, x)))
plant("averages the two paths", "average", forward=lambda b, x: F.relu((branch(b, x) + shortcut(b, x)) / 2))
plant("leaves out bn1", "no_bn1", forward=lambda b, x: F.relu(b.bn2(b.conv2(F.relu(b.conv1(x)))) + shortcut(b, x)))
plant("leaves out bn2", "no_bn2", forward=lambda b, x: F.relu(b.conv2(F.relu(b.bn1(b.conv1(x)))) + shortcut(b, x)))
plant(
    "uses bn1 twice", "bn1_twice",
    forward=lambda b, x: F.relu(b.bn1(b.conv2(F.relu(b.bn1(b.conv1(x))))) + shortcut(b, x)),
)
plant(
    "applies bn2 after the addition", "norm_after_adding",
    forward=lambda b, x: F.relu(b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x)))) + shortcut(b, x))),
)
plant("It changes its input", "adds_in_place", forward=adds_in_place)
plant("pre-activation block of 2016", "pre_activation", forward=pre_activation)
plant("cuts the gradient of the shortcut", "detached_shortcut", forward=shortcut_without_gradient)
plant("gives a convolution a bias", "with_bias", bias=True)
plant(
    "has a projection without batch norm", "projection_without_norm",
    projection=lambda i, c, s: nn.Sequential(nn.Conv2d(i, c, 1, stride=s, bias=False)),
)
plant(
    "does not use the projection's batch norm", "projections_norm_unused",
    forward=lambda b, x: F.relu(branch(b, x) + (x if b.downsample is None else b.downsample[0](x))),
)
plant(
    r"downsample\.0\.weight has shape \(3, 2, 3, 3\) where \(3, 2, 1, 1\)", "projection_3x3",
    projection=lambda i, c, s: nn.Sequential(nn.Conv2d(i, c, 3, s, 1, bias=False), nn.BatchNorm2d(c)),
)
plant("projects where neither width nor stride changes", "always_projected", projected=lambda i, c, s: True)
plant("lacks the projection that a change of width or stride needs", "only_strided", projected=lambda i, c, s: s != 1)
plant("ignores the stride", "no_stride", strides=lambda s: (1, 1),
      projection=lambda i, c, s: nn.Sequential(nn.Conv2d(i, c, 1, bias=False), nn.BatchNorm2d(c)))  # fmt: skip
plant("a 3×3 convolution needs padding=1", "no_padding", padding=0)
plant("batch norm without the affine weight", "no_affine", norm=lambda c: nn.BatchNorm2d(c, affine=False))
plant("batch norm without running statistics", "untracked", norm=lambda c: nn.BatchNorm2d(c, track_running_stats=False))
plant("bn1.running_mean is", "other_momentum", norm=lambda c: nn.BatchNorm2d(c, momentum=0.01))
plant("Its default is not stride=1", "other_default", default_stride=2)


@mistake("residual.basic_block", says="It calls `shortcut.0.weight` what torchvision calls `downsample.0.weight`")
class OtherName(block()):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.downsample is not None:
            self.shortcut = self.downsample
        del self.downsample

    def forward(self, x):
        return F.relu(branch(self, x) + (self.shortcut(x) if hasattr(self, "shortcut") else x))


@mistake("residual.basic_block", says="where an nn.Module is asked for")
def no_module(in_channels, channels, *, stride=1):
    return lambda x: x


def layers_of(kind, i, c, h, w, s, expansion=4, round_down=False, stride_first=False):
    """(kernel, in, out, rows, columns, is a projection) of each convolution."""
    small = (h // s, w // s) if round_down else ((h - 1) // s + 1, (w - 1) // s + 1)
    out = c if kind == "basic" else expansion * c
    if kind == "basic":
        plan = [(3, i, c, *small, False), (3, c, c, *small, False)]
    else:
        first = small if stride_first else (h, w)
        plan = [(1, i, c, *first, False), (3, c, c, *small, False), (1, c, out, *small, False)]
    if s != 1 or i != out:
        plan.append((1, i, out, *small, True))
    return plan


def cost(
    plan=layers_of,
    weights=lambda k, i, o: k * k * i * o,
    extra=lambda o, projects: 2 * o,
    work=lambda weights, rows, columns: weights * rows * columns,
    parameters_of=lambda plan: plan,
    macs_of=lambda plan: plan,
    result=lambda parameters, macs: (parameters, macs),
):
    """Cost of a block, with one part of the formula replaced."""

    def block_cost(block, in_channels, channels, height, width, *, stride=1):
        layers = plan(block, in_channels, channels, height, width, stride)
        parameters = sum(weights(k, i, o) + extra(o, projects) for k, i, o, _, _, projects in parameters_of(layers))
        macs = sum(work(weights(k, i, o), rows, columns) for k, i, o, rows, columns, _ in macs_of(layers))
        return result(parameters, macs)

    return block_cost


def plant_cost(says, name, **parts):
    wrong = cost(**parts)
    wrong.__name__ = name
    mistake("residual.block_cost", says=says)(wrong)


def unprojected(plan):
    return [layer for layer in plan if not layer[-1]]


def on_input_map(kind, i, c, h, w, s):
    return [(k, a, b, h, w, p) for k, a, b, _, _, p in layers_of(kind, i, c, h, w, s)]


def projected_for_width(kind, i, c, h, w, s):
    plan = layers_of(kind, i, c, h, w, s)
    return plan if i != (c if kind == "basic" else 4 * c) else unprojected(plan)


def projected_for_stride(kind, i, c, h, w, s):
    plan = layers_of(kind, i, c, h, w, s)
    return plan if s != 1 else unprojected(plan)


def always_projected(kind, i, c, h, w, s):
    plan = unprojected(layers_of(kind, i, c, h, w, s))
    return [*plan, (1, i, plan[-1][2], *plan[-1][3:5], True)]


plant_cost("gives the number of weights as the compute", "weights_as_compute", work=lambda weights, rows, columns: weights)
plant_cost(
    "gives the number of parameters as the compute", "parameters_as_compute", result=lambda parameters, macs: (parameters,) * 2
)
plant_cost("multiplies by the height only", "height_only", work=lambda weights, rows, columns: weights * rows)
plant_cost("counts two operations", "flops", work=lambda weights, rows, columns: 2 * weights * rows * columns)
plant_cost("every convolution on the map that comes in", "input_map", plan=on_input_map)
plant_cost("the bottleneck's conv1 stands before the stride", "output_map", plan=lambda *a: layers_of(*a, stride_first=True))
plant_cost("rounds an odd side down", "rounded_down", plan=lambda *a: layers_of(*a, round_down=True))
plant_cost(r"forgets the projection\.", "no_projection", plan=lambda *a: unprojected(layers_of(*a)))
plant_cost("forgets the projection's parameters", "projections_parameters", parameters_of=unprojected)
plant_cost("forgets the projection's compute", "projections_compute", macs_of=unprojected)
plant_cost("counts a projection always", "always_projected", plan=always_projected)
plant_cost("projects only where the number of channels changes", "projected_for_width", plan=projected_for_width)
plant_cost("projects only where there is a stride", "projected_for_stride", plan=projected_for_stride)
plant_cost("forgets the parameters of batch norm", "no_norm", extra=lambda o, projects: 0)
plant_cost("counts one parameter a channel for batch norm", "half_norm", extra=lambda o, projects: o)
plant_cost("counts the running statistics", "buffers_too", extra=lambda o, projects: 4 * o)
plant_cost("forgets the parameters of the projection's batch norm", "projections_norm", extra=lambda o, p: 0 if p else 2 * o)
plant_cost("counts a bias for each convolution", "biased", extra=lambda o, projects: 3 * o)
plant_cost("forgets that a bottleneck ends with 4", "no_expansion", plan=lambda *a: layers_of(*a, expansion=1))
plant_cost("in the wrong order", "swapped", result=lambda parameters, macs: (macs, parameters))
plant_cost("where a pair", "only_macs", result=lambda parameters, macs: macs)
plant_cost("counts are whole numbers", "floats", result=lambda parameters, macs: (parameters, macs / 1))
plant_cost("the number of parameters is", "kernel_not_squared", weights=lambda k, i, o: k * i * o)


@mistake("residual.block_cost", says="divides the pixels by the stride once")
def divides_once(block, in_channels, channels, height, width, *, stride=1):
    plan = layers_of(block, in_channels, channels, height, width, stride)
    strided = [stride != 1 and not (block == "bottleneck" and n == 0) for n in range(len(plan))]
    pixels = [height * width // stride if s else rows * cols for s, (*_, rows, cols, _) in zip(strided, plan, strict=True)]
    right = cost()(block, in_channels, channels, height, width, stride=stride)[0]
    return right, sum(k * k * i * o * n for (k, i, o, *_), n in zip(plan, pixels, strict=True))


@mistake("residual.block_cost", says="Its default is not stride=1")
def strided_by_default(block, in_channels, channels, height, width, *, stride=2):
    return cost()(block, in_channels, channels, height, width, stride=stride)


def without_bias(layer):
    layer = copy.deepcopy(layer)
    if isinstance(layer, nn.Conv2d):
        layer.bias = None
    return layer


def rebuild(
    model,
    conv=without_bias,
    other=copy.deepcopy,
    place=lambda layer: [layer, nn.BatchNorm2d(layer.out_channels)],
    nested=lambda layer, again: again(layer),
):
    """The network with batch norms, with one part of the way there replaced."""
    layers = []
    for layer in model:
        if isinstance(layer, nn.Sequential):
            layers.append(nested(layer, lambda inner: rebuild(inner, conv, other, place, nested)))
        elif isinstance(layer, nn.Conv2d):
            layers += place(conv(layer))
        else:
            layers.append(other(layer))
    return nn.Sequential(*layers)


def plant_norms(says, name, **parts):
    def wrong(model):
        return rebuild(model, **parts)

    wrong.__name__ = name
    mistake("residual.add_batch_norm", says=says)(wrong)


def new_conv(layer, **options):
    kept = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups,
            "padding_mode": layer.padding_mode, **options}  # fmt: skip
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, bias=False, **kept)
    if conv.weight.shape == layer.weight.shape:
        conv.weight.data.copy_(layer.weight.data)
    return conv


def redrawn(layer):
    layer = without_bias(layer)
    layer.reset_parameters()
    return layer


def stripped(layer):
    layer.bias = None
    return layer


def shares_weights(layer):
    twin = without_bias(layer)
    twin.weight = layer.weight
    return twin


plant_norms("forgets the convolutions in nested Sequentials", "top_level_only", nested=lambda layer, again: copy.deepcopy(layer))
plant_norms("keeps the bias of layer 0", "keeps_the_bias", conv=copy.deepcopy)
plant_norms("draws new weights", "new_weights", conv=redrawn)
plant_norms("loses the stride", "loses_the_stride", conv=lambda layer: new_conv(layer, stride=1))
plant_norms("loses the padding of", "loses_the_padding", conv=lambda layer: new_conv(layer, padding=0))
plant_norms("loses the dilation", "loses_the_dilation", conv=lambda layer: new_conv(layer, dilation=1))
plant_norms("loses the padding_mode", "loses_the_padding_mode", conv=lambda layer: new_conv(layer, padding_mode="zeros"))
plant_norms("the model given, afterwards", "strips_the_given_model", conv=stripped)
plant_norms("shares weights", "shares_weights", conv=shares_weights)
plant_norms("has 1 channels where the convolution before it gives 2", "in_channels",
            place=lambda layer: [layer, nn.BatchNorm2d(layer.in_channels)])  # fmt: skip
plant_norms("puts the batch norm before the convolution", "before",
            place=lambda layer: [nn.BatchNorm2d(layer.in_channels), layer])  # fmt: skip
plant_norms("returns the layers as they were", "no_norm", place=lambda layer: [layer])
plant_norms("layer 1 is BatchNorm2d", "no_affine",
            place=lambda layer: [layer, nn.BatchNorm2d(layer.out_channels, affine=False)])  # fmt: skip


@mistake("residual.add_batch_norm", says="adds modules while it goes over them")
def setattr_while_iterating(model):
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d):
            setattr(model, name + "_norm", nn.BatchNorm2d(layer.out_channels))
    return model


@mistake("residual.add_batch_norm", says="adds the batch norms at the end of the network")
def setattr_after_listing(model):
    model = copy.deepcopy(model)
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Conv2d):
            layer.bias = None
            setattr(model, name + "_norm", nn.BatchNorm2d(layer.out_channels))
    return model


@mistake("residual.add_batch_norm", says="flattens the nested Sequentials")
def flattened(model):
    def flat(module):
        return [inner for layer in module for inner in (flat(layer) if isinstance(layer, nn.Sequential) else [layer])]

    return nn.Sequential(*flat(rebuild(model)))


@mistake("residual.add_batch_norm", says="keeps only the convolutions")
def only_convolutions(model):
    kept = [layer for layer in model if isinstance(layer, (nn.Conv2d, nn.Sequential))]
    return nn.Sequential(*[only_convolutions(x) if isinstance(x, nn.Sequential) else y
                           for x in kept for y in (rebuild([x]) if isinstance(x, nn.Conv2d) else [x])])  # fmt: skip


@mistake("residual.add_batch_norm", says="one batch norm in several places")
def one_norm_for_all(model):
    norms = {}
    return rebuild(model, place=lambda layer: [layer, norms.setdefault(layer.out_channels, nn.BatchNorm2d(layer.out_channels))])


@mistake("residual.add_batch_norm", says="where a new Sequential is asked for")
def a_list(model):
    return list(rebuild(model))


@mistake("residual.add_batch_norm", says="behind every layer with weights, the linear ones too")
def linear_too(model):
    layers = [(layer, nn.BatchNorm1d(layer.out_features)) if isinstance(layer, nn.Linear) else (layer,) for layer in rebuild(model)]
    return nn.Sequential(*[layer for pair in layers for layer in pair])

"""Wrong answers to the exercise on initialisation."""

import math

from planting import mistake
from torch import nn

from dlcourse.exercises.initialisation import kaiming as right


def layers(model):
    return [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def build(name, says, draw=None, head_draw=None, bias=nn.init.zeros_, pick=layers):
    """The right answer with one part of it replaced, planted."""

    def initialise(model, head):
        for module in pick(model):
            if module is head:
                (head_draw or (lambda w: nn.init.normal_(w, std=0.001)))(module.weight)
            else:
                (draw or (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")))(module.weight)
            if module.bias is not None:
                bias(module.bias)
        return model

    initialise.__name__ = name
    mistake("initialisation.kaiming", says=says)(initialise)


def kaiming(weight):
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def normal(rule):
    return lambda weight: nn.init.normal_(weight, std=rule(weight))


build("kaiming_head", "initialises the head like every other layer", head_draw=kaiming)
build("zero_head", "sets the head to zero: no gradient", head_draw=nn.init.zeros_)
build("zero_trunk", "sets weights to a constant", draw=nn.init.zeros_)
build("ones_trunk", "sets weights to a constant: every unit of a layer", draw=nn.init.ones_)
build("xavier", "is Xavier's rule", draw=nn.init.xavier_normal_)
build(
    "fan_out", r"counts the outputs \(fan-out\)",
    draw=lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
)
build("gain_one", "forgets the 2", draw=lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear"))
build("pytorch_default", "is PyTorch's default", draw=lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)))
build("no_kernel_area", "forgets the pixels of the kernel", draw=normal(lambda w: math.sqrt(2 / w.shape[1])))
build("variance_for_std", "takes the variance 2 / fan_in for", draw=normal(lambda w: 2 / w[0].numel()))
build("all_like_the_head", "treats every layer as the head", draw=normal(lambda w: 0.001))
build("biases_left", "does not set the biases to zero", bias=lambda b: None)
build(
    "top_level_only", r"leaves the weights of some layers alone\. In layer 3\.0",
    pick=lambda model: [m for m in model if isinstance(m, (nn.Conv2d, nn.Linear))],
)
build(
    "not_centred", "does not centre the weights on zero",
    draw=lambda w: nn.init.normal_(w, mean=0.1, std=math.sqrt(2 / w[0].numel())),
)
build(
    "convolutions_only", r"leaves the weights of some layers alone\. In layer 5",
    pick=lambda model: [m for m in layers(model) if isinstance(m, nn.Conv2d)],
)


@mistake("initialisation.kaiming", says="fails on a layer without a bias")
def careless_bias(model, head):
    for module in layers(model):
        if module is head:
            nn.init.normal_(module.weight, std=0.001)
        else:
            kaiming(module.weight)
        module.bias.data.zero_()
    return model


@mistake("initialisation.kaiming", says="changes the weights or biases of normalisation layers")
def every_parameter(model, head):
    for module in model.modules():
        if getattr(module, "weight", None) is not None:
            if module is head:
                nn.init.normal_(module.weight, std=0.001)
            elif module.weight.ndim > 1:
                kaiming(module.weight)
            else:
                nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


build(
    "height_squared", "takes the kernel for square",
    draw=normal(lambda w: math.sqrt(2 / (w.shape[1] * (w.shape[2] ** 2 if w.ndim == 4 else 1)))),
)


def afterwards(name, says, change):
    """The right answer, and then something done to every layer, planted."""

    def initialise(model, head):
        right(model, head)
        for module in layers(model):
            change(module)
        return model

    initialise.__name__ = name
    mistake("initialisation.kaiming", says=says)(initialise)


def to_double(module):
    module.weight.data = module.weight.data.double()


def drop_bias(module):
    module.bias = None


afterwards("freezes", r"leaves the weight of layer 0.* without a gradient", lambda module: module.weight.requires_grad_(False))
afterwards("draws_in_float64", r"the weight of layer 0.* a torch\.float64 tensor", to_double)
afterwards("drops_the_biases", r"removes the bias of layer 0", drop_bias)


@mistake("initialisation.kaiming", says=r"head like every other layer\. In layer 0")
def takes_the_last_layer_for_the_head(model, head):
    return right(model, [module for module in model.modules() if isinstance(module, nn.Linear)][-1])


@mistake("initialisation.kaiming", says="leaves the model in eval mode")
def evaluates(model, head):
    return right(model, head).eval()


@mistake("initialisation.kaiming", says="returns something other than the model it was given")
def returns_the_head(model, head):
    for module in layers(model):
        kaiming(module.weight)
    return head


@mistake("initialisation.kaiming", says="It returns None")
def forgets_return(model, head):
    for module in layers(model):
        kaiming(module.weight)


build("infinite_weights", "leaves weights in .* that are not finite", draw=lambda w: nn.init.constant_(w, math.inf))


def repeats_units(weight):
    """An eighth of the units are drawn, the others are copies of them."""
    drawn = nn.init.kaiming_normal_(weight.data.clone(), nonlinearity="relu")[: len(weight) // 8]
    weight.data.copy_(drawn.repeat(9, *[1] * (weight.ndim - 1))[: len(weight)])


build("copies_of_units", "It repeats weights", draw=repeats_units)

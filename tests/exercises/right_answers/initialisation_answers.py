"""Right answers to the exercises on initialisation, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch import nn


@right_answer("initialisation.kaiming")
def kaiming_by_nn_init(model, head):
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.constant_(module.bias, 0)
    nn.init.normal_(head.weight, 0, 0.001)
    return model


@right_answer("initialisation.kaiming")
def kaiming_uniform_by_apply(model, head):
    def draw(module):
        if type(module) in (nn.Linear, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
            if getattr(module, "bias", None) is not None:
                module.bias.data.fill_(0.0)

    model.apply(draw)
    head.weight.data.normal_(0.0, 1e-3)
    return model


@right_answer("initialisation.kaiming")
def kaiming_by_recursion(model, head):
    for child in model.children():
        kaiming_by_recursion(child, head)
    if isinstance(model, (nn.Linear, nn.Conv2d)):
        fan_in = math.prod(model.weight.shape[1:])
        std = 1e-3 if model is head else (2 / fan_in) ** 0.5
        model.weight.data = std * torch.randn_like(model.weight)
        if model.bias is not None:
            model.bias = nn.Parameter(torch.zeros_like(model.bias))
    return model


@right_answer("initialisation.kaiming")
def kaiming_by_numpy(model, head):
    rng = np.random.default_rng()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            layer = model.get_submodule(name.rpartition(".")[0])
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            if name.endswith("bias"):
                weight.copy_(torch.zeros(weight.shape))
            else:
                std = 0.001 if layer is head else np.sqrt(2 / np.prod(weight.shape[1:]))
                weight.copy_(torch.as_tensor(rng.normal(0, std, tuple(weight.shape))))
    return model


@right_answer("initialisation.kaiming")
def kaiming_by_a_state_dict(model, head):
    state = model.state_dict()
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight = state[f"{name}.weight"]
            std = 0.001 if layer is head else math.sqrt(2 / weight[0].numel())
            state[f"{name}.weight"] = torch.normal(0.0, std, weight.shape)
            if f"{name}.bias" in state:
                state[f"{name}.bias"] = torch.zeros(len(weight))
    model.load_state_dict(state)
    return model

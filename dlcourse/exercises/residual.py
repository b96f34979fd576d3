"""Exercises on the residual block: write it, count what it costs, and put batch norm into a network that has none."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._add_batch_norm import compare_layers, networks, plan
from dlcourse.exercises._block_cost import WRONG_COSTS, Wrong, true_costs
from dlcourse.exercises._residual import (
    BLOCK_MISTAKES,
    CUT_GRADIENTS,
    changed,
    compare_buffers,
    compare_gradients,
    in_each_block,
    load_strictly,
    outputs,
    randomise,
)
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


def check_basic_block(answer: Answer) -> str:
    from dlcourse.models.resnet import BasicBlock as Package

    for in_channels, channels, stride, size in ((2, 2, 1, (3, 3)), (2, 3, 1, (3, 4)), (2, 4, 2, (5, 8)), (3, 3, 2, (6, 7))):
        theirs = randomise(Package(in_channels, channels, stride=stride))
        built = describe(in_channels, channels, stride=stride)
        ours = answer(in_channels, channels, stride=stride)
        load_strictly(ours, theirs.state_dict(), built)
        x = torch.randn(2, in_channels, *size, dtype=torch.float64)
        for training in (True, False):
            ours.value.train(training)
            theirs.train(training)
            given = f"BasicBlock({built}) in {'training' if training else 'eval'} mode, and {describe(x)}"
            before, want = changed(theirs, lambda twin: None), theirs(x)
            wrong = outputs(before, x, {text: in_each_block(forward) for text, forward in BLOCK_MISTAKES.items()})
            compare(_output(ours, x), want, given=given, mistakes=wrong, rtol=1e-8, atol=1e-10)
            compare_buffers(ours, theirs, given)
            compare_gradients(ours, theirs, x, given, {text: in_each_block(f) for text, f in CUT_GRADIENTS.items()})
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    if answer(2, 2).double()(x).shape != x.shape:
        raise Mistake("Its default is not stride=1.")
    return "names and shapes, outputs, buffers and gradients in training and in eval mode, with stride and with widening"


def _output(ours: Any, x: torch.Tensor) -> Any:
    try:
        return ours(x)
    except Mistake as error:
        if any(text in str(error) for text in ("must match the size", "can't be greater than actual input size")):
            raise Mistake(f"Its two paths differ in size; a 3×3 convolution needs padding=1. {error}") from None
        raise


register(
    "residual.basic_block",
    BasicBlock,
    check_basic_block,
    difficulty=3,
    importance=5,
    minutes=20,
    hints=(
        "Two paths start at the input, and meet once. Draw them, and write on each arrow which module it passes.",
        "The branch: conv1, bn1, ReLU, conv2, bn2. The shortcut: the input, or `downsample` of it. Add, then ReLU.",
        "conv1 takes the stride, both 3×3 convolutions padding=1 and bias=False. downsample is None, or a Sequential of "
        "a 1×1 convolution with the stride and bias=False, and a BatchNorm2d.",
    ),
)


def block_cost(
    block: str, in_channels: int, channels: int, height: int, width: int, *, stride: int = 1
) -> tuple[int, int]:
    out = channels if block == "basic" else 4 * channels
    large, small = height * width, -(-height // stride) * -(-width // stride)  # pixels before and after the stride
    if block == "basic":
        convolutions = [(9, in_channels, channels, small), (9, channels, channels, small)]
    else:
        convolutions = [(1, in_channels, channels, large), (9, channels, channels, small), (1, channels, out, small)]
    if stride != 1 or in_channels != out:
        convolutions.append((1, in_channels, out, small))
    parameters = sum(kernel * c_in * c_out + 2 * c_out for kernel, c_in, c_out, _ in convolutions)
    return parameters, sum(kernel * c_in * c_out * pixels for kernel, c_in, c_out, pixels in convolutions)


def check_block_cost(answer: Answer) -> str:
    costs = true_costs()
    got = {case: answer(*case[:5], stride=case[5]) for case in costs}
    for case, pair in got.items():
        given = describe(*case[:5], stride=case[5])
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise Mistake(f"It returns {describe(pair)} for {given}, where a pair (parameters, MACs) is asked for.")
        if any(isinstance(count, float) for count in pair):
            raise Mistake(f"It returns {describe(pair)} for {given}, and counts are whole numbers: divide with `//`.")

    # Two formulas agree by chance on some blocks: a mistake is named only when it explains every answer.
    def explains(wrong: Wrong) -> bool:
        pairs = ((tuple(pair), wrong(case), costs[case]) for case, pair in got.items())
        return all(pair == tuple(t if w is None else w for w, t in zip(bad, true, strict=True)) for pair, bad, true in pairs)

    named = next((text for text, wrong in WRONG_COSTS.items() if explains(wrong)), None)
    for case, want in costs.items():
        for what, ours, theirs in zip(("the number of parameters", "the number of MACs"), got[case], want, strict=True):
            mistakes = {named: ours} if named else {}
            compare(ours, theirs, given=describe(*case[:5], stride=case[5]), what=what, mistakes=mistakes, rtol=0, atol=0)
    if tuple(answer("basic", 2, 2, 4, 6)) != costs["basic", 2, 2, 4, 6, 1]:
        raise Mistake("Its default is not stride=1.")
    return f"{len(costs)} blocks, counted on the package's own: both kinds, odd maps, with stride and with widening"


register(
    "residual.block_cost",
    block_cost,
    check_block_cost,
    difficulty=3,
    importance=4,
    minutes=15,
    hints=(
        "List the convolutions first: kernel, channels in, channels out, and the number of pixels each one writes.",
        "A convolution has k·k·in·out weights, and does as many multiply-accumulates for every pixel that it writes. "
        "Its batch norm adds 2 · out parameters.",
        "A stride makes -(-height // stride) rows. The basic block strides in conv1, the bottleneck in its 3×3. The "
        "projection is there when the stride is not 1 or the widths differ; a bottleneck's output has 4 · channels.",
    ),
)


def add_batch_norm(model: nn.Sequential) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, nn.Sequential):
            layers.append(add_batch_norm(layer))
            continue
        layers.append(copy.deepcopy(layer))
        if isinstance(layer, nn.Conv2d):
            layers[-1].bias = None  # type: ignore[assignment]
            layers.append(nn.BatchNorm2d(layer.out_channels))
    return nn.Sequential(*layers)


def check_add_batch_norm(answer: Answer) -> str:
    for model, x in networks():
        before, layers = copy.deepcopy(model), plan(model)
        given = " ".join(str(model).split())
        try:
            got = answer(model)
        except Mistake as error:
            if "changed size during iteration" not in str(error) and "mutated during iteration" not in str(error):
                raise
            why = "It adds modules while it goes over them (named_children reads the very dictionary that setattr writes)"
            raise Mistake(f"{why}. Make a list of the new layers, and of that a Sequential. {error}") from None
        if plan(model) != layers:
            raise Mistake(f"It changes the model that it is given: make a new one. Given {given}")
        compare(dict(model.state_dict()), dict(before.state_dict()), given=given, what="the model given, afterwards,")
        if not isinstance(got, Answer) or not isinstance(got.value, nn.Sequential):
            what = type(got.value).__name__ if isinstance(got, Answer) else describe(got)
            raise Mistake(f"It returns {what} where a new Sequential is asked for. Given {given}")
        compare_layers(got.value, add_batch_norm(model), before, given)
        if {id(p) for p in got.value.parameters()} & {id(p) for p in model.parameters()}:
            raise Mistake(f"It shares weights with the model that it is given: copy them (copy.deepcopy). Given {given}")
        norms = [module for module in got.value.modules() if isinstance(module, nn.BatchNorm2d)]
        if len(norms) < str(before).count("Conv2d("):
            raise Mistake(f"It uses one batch norm in several places; each has statistics of its own. Given {given}")
        want = add_batch_norm(model)
        compare(got.value.train()(x), want.train()(x), given=f"{given} and {describe(x)}", what="the new network's output")
    return "a batch norm behind every convolution, nested ones too; weights and options kept, no bias, the model untouched"


register(
    "residual.add_batch_norm",
    add_batch_norm,
    check_add_batch_norm,
    difficulty=3,
    importance=3,
    minutes=15,
    hints=(
        "A Sequential can be gone through with `for layer in model`. Which three kinds of layer need different treatment?",
        "Collect the new layers in a list; a nested Sequential is the same task again, so call yourself for it.",
        "conv = copy.deepcopy(layer); conv.bias = None; then append nn.BatchNorm2d(conv.out_channels). Everything else is "
        "deep-copied, and nn.Sequential(*layers) is the result.",
    ),
)

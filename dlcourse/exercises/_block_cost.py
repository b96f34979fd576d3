"""What the check of `residual.block_cost` compares with: the package's blocks counted, and the wrong formulas by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

Case = tuple[str, int, int, int, int, int]  # block, in_channels, channels, height, width, stride


class Layer(NamedTuple):
    """One convolution of a block, with the rows and columns that it writes."""

    name: str
    kernel: int
    inputs: int
    outputs: int
    rows: int
    columns: int

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs


@lru_cache(maxsize=1)
def true_costs() -> dict[Case, tuple[int, int]]:
    """What the package's own blocks cost, counted on the blocks themselves."""
    from dlcourse.models import count_macs, count_parameters
    from dlcourse.models.resnet import BasicBlock, Bottleneck

    costs = {}
    for (i, c), (h, w), s, name in product(((2, 2), (8, 2), (3, 5)), ((1, 1), (4, 6), (7, 5)), (1, 2), ("basic", "bottleneck")):
        block = BasicBlock(i, c, stride=s) if name == "basic" else Bottleneck(i, c, stride=s)
        costs[name, i, c, h, w, s] = count_parameters(block), count_macs(block, (i, h, w))
    return costs


def layers(case: Case, *, expansion: int = 4, stride_first: bool = False, round_down: bool = False) -> list[Layer]:
    """The convolutions of a block, rightly or with one mistake about its plan."""
    block, i, c, h, w, s = case
    large, small = (h, w), (h // s, w // s) if round_down else (-(-h // s), -(-w // s))
    if block == "basic":
        plan, out = [Layer("conv1", 3, i, c, *small), Layer("conv2", 3, c, c, *small)], c
    else:
        out = expansion * c
        first = Layer("conv1", 1, i, c, *(small if stride_first else large))
        plan = [first, Layer("conv2", 3, c, c, *small), Layer("conv3", 1, c, out, *small)]
    return [*plan, Layer("projection", 1, i, out, *small)] if s != 1 or i != out else plan


def parameters(plan: list[Layer], *, norm: int = 2, bias: int = 0, projections_norm: int | None = None) -> int:
    def of_channel(layer: Layer) -> int:
        return bias + (norm if layer.name != "projection" or projections_norm is None else projections_norm)

    return sum(layer.weights + of_channel(layer) * layer.outputs for layer in plan)


def macs(plan: list[Layer]) -> int:
    return sum(layer.weights * layer.rows * layer.columns for layer in plan)


def unprojected(case: Case) -> list[Layer]:
    return [layer for layer in layers(case) if layer.name != "projection"]


def projected_if(wanted: bool, case: Case) -> tuple[int, int]:
    plan = unprojected(case)
    if wanted:
        last = plan[-1]
        plan.append(Layer("projection", 1, case[1], last.outputs, last.rows, last.columns))
    return parameters(plan), macs(plan)


def halved_once(case: Case) -> int:
    def pixels(layer: Layer) -> int:
        strided = case[5] != 1 and (layer.name != "conv1" or case[0] == "basic")
        return case[3] * case[4] // case[5] if strided else layer.rows * layer.columns

    return sum(layer.weights * pixels(layer) for layer in layers(case))


# The pair (parameters, MACs) that a mistake leads to; None stands for a right count.
Wrong = Callable[[Case], tuple["int | None", "int | None"]]
WRONG_COSTS: dict[str, Wrong] = {
    "gives the number of weights as the compute: each weight works once for every pixel written, so times H·W":
        lambda case: (None, sum(layer.weights for layer in layers(case))),
    "gives the number of parameters as the compute: each weight works once for every pixel written, so times H·W":
        lambda case: (None, parameters(layers(case))),
    "multiplies by the height only": lambda case: (None, sum(layer.weights * layer.rows for layer in layers(case))),
    "counts two operations for a multiply-accumulate": lambda case: (None, 2 * macs(layers(case))),
    "counts every convolution on the map that comes in, though the stride makes it smaller":
        lambda case: (None, sum(layer.weights * case[3] * case[4] for layer in layers(case))),
    "counts every convolution on the map that goes out; the bottleneck's conv1 stands before the stride":
        lambda case: (None, macs(layers(case, stride_first=True))),
    "rounds an odd side down; with padding 1, stride 2 makes 4 pixels of 7":
        lambda case: (None, macs(layers(case, round_down=True))),
    "divides the pixels by the stride once; it shortens both sides": lambda case: (None, halved_once(case)),
    "forgets the projection": lambda case: (parameters(unprojected(case)), macs(unprojected(case))),
    "forgets the projection's parameters": lambda case: (parameters(unprojected(case)), None),
    "forgets the projection's compute": lambda case: (None, macs(unprojected(case))),
    "counts a projection always; where the shape stays, the shortcut is the input itself":
        lambda case: projected_if(True, case),
    "projects only where the number of channels changes; a stride needs it too":
        lambda case: projected_if(case[1] != unprojected(case)[-1].outputs, case),
    "projects only where there is a stride; a change of width needs it too": lambda case: projected_if(case[5] != 1, case),
    "forgets the parameters of batch norm": lambda case: (parameters(layers(case), norm=0), None),
    "counts one parameter a channel for batch norm; it has a weight and a bias":
        lambda case: (parameters(layers(case), norm=1), None),
    "counts the running statistics of batch norm, which are buffers and not learned":
        lambda case: (parameters(layers(case), norm=4), None),
    "forgets the parameters of the projection's batch norm":
        lambda case: (parameters(layers(case), projections_norm=0), None),
    "counts a bias for each convolution; before a batch norm there is none":
        lambda case: (parameters(layers(case), bias=1), None),
    "forgets that a bottleneck ends with 4 · channels":
        lambda case: (parameters(layers(case, expansion=1)), macs(layers(case, expansion=1))),
    "returns the two counts in the wrong order": lambda case: (macs(layers(case)), parameters(layers(case))),
}  # fmt: skip

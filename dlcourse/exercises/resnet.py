"""Exercise on ResNet-18: write it whole, so that torchvision's state dict loads and gives the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._residual import (
    Change,
    changed,
    compare_buffers,
    compare_gradients,
    load_strictly,
    outputs,
    randomise,
)
from dlcourse.exercises._resnet18 import GRADIENT_MISTAKES, NETWORK_MISTAKES, TRACK_MISTAKES
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register
from dlcourse.exercises.residual import BasicBlock

CLASSES = 7


class ResNet18(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2), BasicBlock(512, 512))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


@lru_cache(maxsize=1)
def _torchvisions() -> nn.Module:
    """torchvision's ResNet-18 with random weights, whose batch norms have seen images and are then disturbed."""
    from torchvision.models import resnet18

    model = randomise(resnet18(num_classes=CLASSES))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 64, 64, dtype=torch.float64))
        for norm in norms:
            norm.momentum = 0.1
            norm.running_var *= torch.rand(norm.num_features, dtype=torch.float64) + 0.5  # type: ignore[operator]
    return model


def check_resnet18(answer: Answer) -> str:
    theirs = changed(_torchvisions(), lambda twin: None)
    ours = answer(CLASSES)
    _count_blocks(ours, theirs)
    load_strictly(ours, theirs.state_dict(), f"num_classes={CLASSES}")
    for training, shape in ((False, (2, 3, 32, 32)), (False, (1, 3, 41, 70)), (True, (3, 3, 48, 40))):
        ours.value.train(training)
        before = changed(theirs.train(training), lambda twin: None)
        x = torch.randn(shape, dtype=torch.float64)
        given = f"{describe(x)} in {'training' if training else 'eval'} mode"
        wrong = outputs(before, x, NETWORK_MISTAKES)
        with torch.no_grad():
            compare(_logits(ours, x), theirs(x), given=given, mistakes=wrong, rtol=1e-8, atol=1e-9)
        compare_buffers(ours, theirs, f"{given}, afterwards", partial(_statistics, before, x))
    compare_gradients(ours, theirs, x, given, GRADIENT_MISTAKES)
    return "torchvision's state dict loads strictly; logits in eval and in training mode, running statistics, gradients"


def _logits(ours: Answer, x: torch.Tensor) -> Any:
    try:
        return ours(x)
    except Mistake as error:
        if any(text in str(error) for text in ("too small", "cannot be multiplied", "size mismatch")):
            why = "It pools the last map with a window of fixed size, or not at all: nn.AdaptiveAvgPool2d(1) takes any map"
            raise Mistake(f"{why}. {error}") from None
        raise


def _statistics(before: nn.Module, x: torch.Tensor, name: str) -> dict[str, Callable[[], torch.Tensor]]:
    """The running statistics that each wrong batch norm would leave under this name."""

    def left(change: Change, training: bool) -> torch.Tensor:
        model = changed(before, change).train(training)
        with torch.no_grad():
            model(x)
        return dict(model.named_buffers())[name]

    if not before.training:
        return {"updates running statistics in eval mode": lambda: left(lambda twin: None, True)}
    return {text: partial(left, change, True) for text, change in TRACK_MISTAKES.items()}


def _count_blocks(ours: Any, theirs: nn.Module) -> None:
    """A stage with too many or too few blocks is said as that, before tensors are listed."""
    if not isinstance(ours, Answer):
        return
    depths = []
    for model in (ours.value, theirs):
        blocks = {tuple(name.split(".")[:2]) for name in model.state_dict() if name.startswith("layer")}
        depths.append(Counter(stage for stage, _ in blocks))
    for stage, depth in sorted(depths[1].items()):
        if depths[0][stage] not in (0, depth):
            raise Mistake(f"It has {depths[0][stage]} block(s) in {stage}, where ResNet-18 has {depth} in every stage.")


register(
    "resnet.resnet18",
    ResNet18,
    check_resnet18,
    difficulty=4,
    importance=5,
    minutes=40,
    hints=(
        "Write down the names and shapes of torchvision's state dict: `resnet18().state_dict()` is the plan. Then build "
        "the stem, four stages of two blocks, and the head.",
        "Stem: 7×7, stride 2, padding 3, no bias; batch norm; ReLU; max pooling 3, stride 2, padding 1. The widths are "
        "64, 128, 256, 512. layer2, layer3 and layer4 begin with a block of stride 2.",
        "layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128)), and so on. At the end "
        "nn.AdaptiveAvgPool2d(1), flatten(1), and a Linear called fc from 512 to num_classes.",
    ),
)

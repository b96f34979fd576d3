"""What a wrong ResNet-18 computes: changes of a right one, each under the sentence that names the mistake."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.exercises._residual import BLOCK_MISTAKES, CUT_GRADIENTS, Change, in_each_block


def _batch_norm(
    bn: Any,
    x: torch.Tensor,
    *,
    statistics: str = "right",
    weight: bool = True,
    bias: bool = True,
    divide: Callable[..., torch.Tensor] = lambda x, var: x / torch.sqrt(var + 1e-5),
    track: Callable[..., Any] = lambda bn, mean, var, n: (torch.lerp(bn.running_mean, mean, 0.1),
                                                          torch.lerp(bn.running_var, var * n / (n - 1), 0.1)),
) -> torch.Tensor:  # fmt: skip
    """Batch norm by hand, with one part of it replaced."""
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    n = x.numel() // x.shape[1]
    if bn.training:
        used = {"running": (bn.running_mean.clone(), bn.running_var.clone()), "constant": (mean.detach(), var.detach()),
                "unbiased": (mean, var * n / (n - 1))}.get(statistics, (mean, var))  # fmt: skip
        bn.running_mean, bn.running_var = track(bn, mean.detach(), var.detach(), n)
    else:
        used = {"batch": (mean, var), "no mean": (0 * bn.running_mean, bn.running_var)}.get(
            statistics, (bn.running_mean, bn.running_var))  # fmt: skip
        if statistics == "no variance":
            used = bn.running_mean, torch.ones_like(bn.running_var)
    out = divide(x - used[0][:, None, None], used[1][:, None, None])
    out = out * bn.weight[:, None, None] if weight else out
    return out + bn.bias[:, None, None] if bias else out


def _norm(**parts: Any) -> Change:
    def change(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.forward = partial(_batch_norm, module, **parts)  # type: ignore[method-assign]

    return change


def _subtract_only(x: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
    return x


NORM_MISTAKES: dict[str, Change] = {
    "uses a batch norm that ignores the running variance in eval mode": _norm(divide=_subtract_only),
    "uses a batch norm that ignores the running variance in eval mode, and divides by √(1 + eps)": _norm(statistics="no variance"),
    "uses a batch norm that ignores the running mean in eval mode": _norm(statistics="no mean"),
    "uses a batch norm that takes the batch's statistics in eval mode": _norm(statistics="batch"),
    "uses a batch norm that forgets the weight and the bias": _norm(weight=False, bias=False),
    "uses a batch norm that forgets the bias": _norm(bias=False),
    "uses a batch norm that forgets the weight": _norm(weight=False),
    "uses a batch norm without eps": _norm(divide=lambda x, var: x / torch.sqrt(var)),
    "uses a batch norm that adds eps to the standard deviation, not to the variance":
        _norm(divide=lambda x, var: x / (torch.sqrt(var) + 1e-5)),
    "uses a batch norm that divides by the variance instead of its root": _norm(divide=lambda x, var: x / (var + 1e-5)),
    "uses a batch norm that takes the running statistics in training mode": _norm(statistics="running"),
    "uses a batch norm that normalises with the unbiased variance": _norm(statistics="unbiased"),
}  # fmt: skip
GRADIENT_MISTAKES: dict[str, Change] = {
    "uses a batch norm that treats the batch's mean and variance as constants": _norm(statistics="constant"),
    **{f"has blocks of which each {text}": in_each_block(forward) for text, forward in CUT_GRADIENTS.items()},
}


def _tracked(bn: Any, mean: torch.Tensor, var: torch.Tensor, n: int, *, old_mean: float = 0.9, old_var: float = 0.9,
             unbiased: bool = True) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    new = var * n / (n - 1) if unbiased else var
    return old_mean * bn.running_mean + (1 - old_mean) * mean, old_var * bn.running_var + (1 - old_var) * new


TRACK_MISTAKES: dict[str, Change] = {
    "uses a batch norm that never updates the running variance": _norm(track=partial(_tracked, old_var=1.0)),
    "uses a batch norm that never updates the running mean": _norm(track=partial(_tracked, old_mean=1.0)),
    "uses a batch norm that feeds the biased variance into the running one": _norm(track=partial(_tracked, unbiased=False)),
    "uses a batch norm that takes momentum the wrong way round": _norm(track=partial(_tracked, old_mean=0.1, old_var=0.1)),
    "uses a batch norm that replaces the running statistics by the batch's": _norm(track=partial(_tracked, old_mean=0.0, old_var=0.0)),
}  # fmt: skip


def _network(
    m: Any,
    x: torch.Tensor,
    *,
    stem: Callable[..., torch.Tensor] = lambda m, x: m.conv1(x),
    act: Callable[[torch.Tensor], torch.Tensor] = F.relu,
    pool: Callable[[torch.Tensor], torch.Tensor] = lambda x: F.max_pool2d(x, 3, 2, 1),
    mean: Callable[[torch.Tensor], torch.Tensor] = lambda x: x.mean(dim=(2, 3)),
    head: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> torch.Tensor:
    """ResNet-18 by hand, with one part of it replaced."""
    x = pool(act(m.bn1(stem(m, x))))
    return head(m.fc(mean(m.layer4(m.layer3(m.layer2(m.layer1(x)))))))


def _whole(**parts: Any) -> Change:
    def change(model: nn.Module) -> None:
        model.forward = partial(_network, model, **parts)

    return change


def _stem(stride: int, padding: int) -> Change:
    return _whole(stem=lambda m, x: F.conv2d(x, m.conv1.weight, stride=stride, padding=padding))


NETWORK_MISTAKES: dict[str, Change] = {
    "leaves out the max pooling behind the first convolution": _whole(pool=lambda x: x),
    "has no ReLU behind the first batch norm": _whole(act=lambda x: x),
    "has a max pooling without padding=1": _whole(pool=lambda x: F.max_pool2d(x, 3, 2)),
    "pools 2×2 windows behind the first convolution; they are 3×3 with stride 2 and padding 1":
        _whole(pool=lambda x: F.max_pool2d(x, 2)),
    "averages in the first pooling, which takes the maximum": _whole(pool=lambda x: F.avg_pool2d(x, 3, 2, 1)),
    **{f"gives the first convolution padding={p}; a 7×7 kernel needs padding=3": _stem(2, p) for p in (0, 1, 2)},
    "gives the first convolution stride 1; it is 2": _stem(1, 3),
    "takes the maximum of the last map, where its mean is classified": _whole(mean=lambda x: x.amax(dim=(2, 3))),
    "adds the last map up, where its mean is classified": _whole(mean=lambda x: x.sum(dim=(2, 3))),
    "ends in a softmax; logits are asked for, cross_entropy takes the softmax itself": _whole(head=lambda x: x.softmax(1)),
    "ends in a log_softmax; logits are asked for, cross_entropy takes it itself": _whole(head=lambda x: x.log_softmax(1)),
    "has a ReLU behind the last layer; logits may be negative": _whole(head=F.relu),
    **{f"has blocks of which each {text}": in_each_block(forward) for text, forward in BLOCK_MISTAKES.items()},
    **NORM_MISTAKES,
}  # fmt: skip

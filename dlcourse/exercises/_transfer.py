"""Small networks with the module trees of well-known families, for the exercises on transfer learning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlcourse.exercises.checking import Answer, Mistake, NotAttempted


class Mini(nn.Module):
    """(B, 3, 4, 4) -> (B, 5): a stem, layers or blocks, and a head by the family's name; no weight at its usual start."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family
        if family == "ViT":
            self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))
            self.stem: nn.Module = nn.Linear(48, 6)
            self.blocks = nn.Sequential(*(_Block() for _ in range(12)))
            self.norm = nn.LayerNorm(6)
            self.heads = nn.Sequential(OrderedDict(head=nn.Linear(6, 5)))
        else:
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.layer1 = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
            self.layer2 = nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if family == "ResNet":
            self.fc = nn.Linear(8, 5)
        elif family == "EfficientNet":
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 5))
        elif family == "MobileNetV3":
            self.classifier = nn.Sequential(nn.Linear(8, 7), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(7, 5))
        elif family == "timm's Inception-ResNet":
            self.classif = nn.Linear(8, 5)
            self.get_classifier = lambda: self.classif  # what timm's models offer
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape) / 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.family == "ViT":
            x = self.stem(x.flatten(1)) + self.cls_token + self.pos_embed  # (B, 48) -> (B, 6)
            return self.heads(self.norm(self.blocks(x)))  # (B, 6) -> (B, K)
        x = self.layer2(self.layer1(self.stem(x)))  # (B, 3, 4, 4) -> (B, 8)
        head = next(getattr(self, name) for name in ("fc", "classifier", "classif") if hasattr(self, name))
        return head(x)  # (B, 8) -> (B, K)


class _Block(nn.Module):
    """Norm and MLP with timm's names, whose `fc1` and `fc2` are no heads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(6, 4), act=nn.GELU(), fc2=nn.Linear(4, 6)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


FAMILIES = ("ResNet", "EfficientNet", "MobileNetV3", "ViT", "timm's Inception-ResNet")


def families() -> Iterator[tuple[str, Mini]]:
    """Each family by name, with weights of its own."""
    return ((family, Mini(family)) for family in FAMILIES)


def kept_apart(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@contextmanager
def silent() -> Iterator[None]:
    """For calls whose exception is part of the task: what the answer prints is swallowed as elsewhere."""
    import contextlib
    import io
    import warnings

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def insist_on_value_error(answer: Answer, call: Callable[[], object], given: str, names: str, otherwise: str) -> None:
    """Raise Mistake unless the call raises a ValueError whose message holds `names`."""
    try:
        with silent():
            call()
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError as error:
        if names not in str(error):
            raise Mistake(f"Its ValueError for {given} does not name {names!r}: {error}") from None
        return
    except (Exception, SystemExit) as error:
        raise Mistake(f"It raises {type(error).__name__} for {given}; a ValueError that names {names!r} is asked for.") from None
    raise Mistake(f"It raises no error for {given}. {otherwise}")

"""Transfer learning: a new head on a trained network, and which parts of it learn, how fast and from when.

Everything here finds its way by the module tree, so that it serves this course's networks, torchvision's and timm's.
A *prefix* is a path of whole names: "blocks.1" is the block 1 and all in it, not block 10. Layer-wise rates and gradual
unfreezing: Howard & Ruder 2018 (arXiv:1801.06146).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dlcourse.training.callbacks import Callback

if TYPE_CHECKING:
    from dlcourse.training.trainer import Trainer

CONTAINERS = (nn.Sequential, nn.ModuleList)
HEADS = ("fc", "classifier", "head", "heads")  # what torchvision and this course call it; timm's models say themselves


def get_classifier(model: nn.Module) -> tuple[str, nn.Linear]:
    """The name and the module of the last linear layer, the one that makes the logits.

    timm's models are asked (`get_classifier()`); others are looked through for what torchvision calls a head, and there
    the last linear layer counts. Raises ValueError for a model with no such layer or with several heads.
    """
    kind, parts = type(model).__name__, [name for name, _ in model.named_children()]
    if auxiliary := [name for name in parts if name.lower().startswith("aux")]:
        raise ValueError(f"{kind} has auxiliary heads ({', '.join(auxiliary)}); build it without them")
    ask = getattr(model, "get_classifier", None)
    heads = [ask()] if callable(ask) else [getattr(model, name, None) for name in HEADS]
    layers = [layer for head in heads if isinstance(head, nn.Module) for layer in head.modules()]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"{kind} has no linear classifier that I can find; its parts: {', '.join(parts) or 'none'}")
    name = next(name for name, module in model.named_modules() if module is linear[-1])
    return name, linear[-1]


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Put a new, untrained classifier with `num_classes` outputs into the model, and return the model.

    Its weights are drawn small (0.01) and its bias is zero, so that the first loss is that of guessing, ln(num_classes).
    Raises ValueError as `get_classifier` does, and for num_classes below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes} must be at least 1")
    name, old = get_classifier(model)
    new = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
    nn.init.normal_(new.weight, std=0.01)
    nn.init.zeros_(new.bias)
    model.set_submodule(name, new)
    if hasattr(model, "num_classes"):  # timm's models remember it
        model.num_classes = num_classes  # type: ignore[assignment]
    if isinstance(spec := getattr(model, "spec", None), dict):
        model.spec = {**spec, "num_classes": num_classes}  # type: ignore[assignment]
    return model


def regression_head(model: nn.Module) -> nn.Module:
    """Replace the classifier by one number an image: the model's output becomes (B,), the shape of its targets.

    With (B, 1) instead, a loss against targets (B,) would broadcast to (B, B) and compare every image with every target.
    """
    name, _ = get_classifier(replace_head(model, 1))
    model.set_submodule(name, nn.Sequential(model.get_submodule(name), nn.Flatten(0)))  # (B, 1) -> (B,)
    return model


def parameters_under(model: nn.Module, prefix: str) -> list[str]:
    """The names of the parameters at or under the path `prefix`: "blocks.1" is block 1 and all in it, not block 10.

    Raises ValueError, with the model's parts, when there is none.
    """
    names = [name for name, _ in model.named_parameters() if f"{name}.".startswith(f"{prefix}.")]
    if not names:
        parts = ", ".join(name for name, _ in model.named_children()) or "none"
        raise ValueError(f"no parameter of {type(model).__name__} lies under {prefix!r}; its parts: {parts}")
    return names


def freeze(model: nn.Module, until: str | None = None) -> list[str]:
    """Stop learning, in the order the parts stand in the model, up to but without `until` (a prefix); None: the head.

    Returns the names of the frozen parameters. `train_one_epoch` and the Trainer hold a batch norm that is frozen in eval
    mode (`set_training_mode`): its statistics would move otherwise. Raises ValueError when nothing matches or comes before.
    """
    until = get_classifier(model)[0] if until is None else until
    names = [name for name, _ in model.named_parameters()]
    first = names.index(parameters_under(model, until)[0])
    if first == 0:
        raise ValueError(f"until={until!r} is the first part of the model: nothing comes before it to freeze")
    for name in names[:first]:
        model.get_parameter(name).requires_grad_(False)
    return names[:first]


def unfreeze(model: nn.Module, prefix: str | None = None) -> list[str]:
    """Let the parameters under `prefix` learn, None all of them; returns their names.

    An optimizer that was built without them still does not train them: `optimizer.add_param_group`, or build it anew.
    Raises ValueError when nothing matches.
    """
    names = [name for name, _ in model.named_parameters()] if prefix is None else parameters_under(model, prefix)
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    return names


def layers_in_order(model: nn.Module) -> list[list[str]]:
    """Names of all parameters, grouped into the layers of the network from the input to the head, each name once.

    The layers are the network's stages, such as layer1 … layer4 of a ResNet or the blocks of a ViT. What stands before the
    first is the stem, what stands between two goes with the one before it, and the head is the last layer.
    """
    head = get_classifier(model)[0].split(".")[0]
    stages = _stages(model, head)
    layers: dict[str, list[str]] = {}
    current = "stem"
    for name, _ in model.named_parameters():
        current = next((layer for layer in (head, *stages) if name.startswith(f"{layer}.")), current)
        layers.setdefault(current, []).append(name)
    return list(layers.values())


def _stages(model: nn.Module, head: str) -> list[str]:
    """The first level of the module tree, on the way down to most of the weights, with three stages or more.

    Stages are containers (nn.Sequential, nn.ModuleList) side by side, or the members of one container.
    """
    path, module = "", model
    while True:
        children = {f"{path}{name}": child for name, child in module.named_children() if _size(child)}
        children.pop(head, None)
        containers = {name: child for name, child in children.items() if isinstance(child, CONTAINERS)}
        stages = children if isinstance(module, CONTAINERS) else containers
        if len(stages) >= 3 or not children:
            return list(stages)
        largest = max(children, key=lambda name: _size(children[name]))
        path, module = f"{largest}.", children[largest]


def layerwise_param_groups(model: nn.Module, base_lr: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: the head at `base_lr`, each layer below at `decay` times the rate above it.

    Every parameter is in exactly one group (checked), frozen ones too, so that they can be unfrozen later. Each group
    bears a "name". Raises ValueError for base_lr ≤ 0 and a decay outside 0 < decay ≤ 1.
    """
    if not base_lr > 0:
        raise ValueError(f"base_lr={base_lr} must be positive")
    if not 0 < decay <= 1:
        raise ValueError(f"decay={decay} must lie in 0 < decay ≤ 1")
    layers = layers_in_order(model)
    groups: list[dict[str, Any]] = [
        {
            "name": names[0].rsplit(".", 1)[0],
            "params": [model.get_parameter(name) for name in names],
            "lr": base_lr * decay ** (len(layers) - 1 - i),
        }
        for i, names in enumerate(layers)
    ]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    if sorted(grouped) != sorted(id(parameter) for parameter in model.parameters()):
        raise RuntimeError(f"the groups of {type(model).__name__} do not hold every parameter exactly once")
    return groups


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and convolutions with weight decay; norms, biases and position embeddings without.

    A vector (a bias, the scale of a norm) has no large weights to hold down, and shrinking a norm's scale changes what
    the layer computes. Every parameter is in exactly one group. Raises ValueError for a weight_decay below 0.
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay={weight_decay} must be at least 0")
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        embedding = name.rsplit(".", 1)[-1] in ("pos_embed", "pos_embedding", "cls_token", "class_token", "dist_token")
        (free if parameter.ndim <= 1 or embedding else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class GradualUnfreezing(Callback):
    """Train the head first, then let one part more learn every `every` epochs, from the head down.

        unfreezing = GradualUnfreezing(model, optimizer, ["layer4", "layer3"], every=2, lr=1e-4)
        Trainer(model, optimizer, loss_fn, make_scheduler(…), config=…, callbacks=[unfreezing])

    Made before the scheduler: it freezes all but the head and adds a group, at `lr`, for each part that the optimizer
    does not hold yet, so that the schedule sees them all. Raises ValueError for a prefix that matches nothing, a part
    named twice, and an optimizer that lacks the head.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, stages: Sequence[str], *, every: int = 1, lr: float
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        head = get_classifier(model)[0]
        if not held >= {id(model.get_parameter(name)) for name in parameters_under(model, head)}:
            raise ValueError(f"the optimizer does not hold the head, {head}: build it on the head at least")
        taken: set[str] = set()
        for stage in stages:
            names = parameters_under(model, stage)
            if again := taken.intersection(names):
                raise ValueError(f"stages={list(stages)} names {sorted(again)[0]} twice")
            taken.update(names)
            missing = [p for p in map(model.get_parameter, names) if id(p) not in held]
            if missing:
                optimizer.add_param_group({"params": missing, "lr": lr, "name": stage})
        freeze(model)
        self.stages, self.every, self.unfrozen = list(stages), every, 0
        self._model = model

    def on_fit_start(self, trainer: Trainer) -> None:
        rates = getattr(trainer.scheduler, "base_lrs", None)
        if rates is not None and len(rates) != len(trainer.optimizer.param_groups):
            raise ValueError("make GradualUnfreezing before the scheduler: the schedule does not hold its groups")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        due = min(int(record["epoch"]) // self.every, len(self.stages))
        for stage in self.stages[self.unfrozen : due]:
            unfreeze(self._model, stage)
        self.unfrozen = max(self.unfrozen, due)

    def state_dict(self) -> dict[str, Any]:
        return {"unfrozen": self.unfrozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.unfrozen = state["unfrozen"]
        for stage in self.stages[: self.unfrozen]:
            unfreeze(self._model, stage)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

"""Exercises on transfer learning (chapter 09): a new head, freezing, layer-wise rates, distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlcourse.exercises._distillation import distillation_mistakes
from dlcourse.exercises._transfer import Mini, families, insist_on_value_error, kept_apart
from dlcourse.exercises._transfer_checks import check_groups, check_new_head, listed, why_frozen
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Give the model a new last linear layer with `num_classes` outputs; returns the model itself."""
    ask = getattr(model, "get_classifier", None)  # timm's models say which it is
    head = ask() if ask else next(getattr(model, name) for name in ("fc", "classifier", "heads") if hasattr(model, name))
    old = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
    name = next(name for name, module in model.named_modules() if module is old)
    model.set_submodule(name, nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype))
    return model


def check_replace_head(answer: Answer) -> str:
    for num_classes, dtype in ((3, torch.float32), (5, torch.float32), (1, torch.float64)):
        for family, model in families():
            model = model.to(dtype).eval()
            given = f"a small {family} in {str(dtype).removeprefix('torch.')} with 5 classes, and num_classes={num_classes}"
            head = {"ResNet": "fc", "EfficientNet": "classifier.1", "MobileNetV3": "classifier.3", "ViT": "heads.head"}
            check_new_head(answer, model, num_classes, head.get(family, "classif"), given)
    return "five families, three numbers of classes (the old one too), float64, the backbone untouched, a fresh head that learns"


register(
    "transfer.replace_head", replace_head, check_replace_head, difficulty=3, importance=5, minutes=20,
    hints=(
        "First find the module that makes the logits, then its name in the model, then put a new layer of the same input "
        "width under that name.",
        "head.modules() walks a single layer and a Sequential alike: the last nn.Linear in it is the one. "
        "Its in_features are what the new layer needs.",
        "model.named_modules() gives (name, module): the name of the one that `is` the old layer, such as 'classifier.1'. "
        "model.set_submodule(name, nn.Linear(old.in_features, num_classes)); mind the dtype.",
    ),
)  # fmt: skip


def freeze(model: nn.Module, prefix: str) -> list[str]:
    """Stop the parameters at or under the path `prefix` from learning; returns their names in the model's order."""
    names = [name for name, _ in model.named_parameters() if f"{name}.".startswith(f"{prefix}.")]
    if not names:
        raise ValueError(f"no parameter lies under {prefix!r}")
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return names


def check_freeze(answer: Answer) -> str:
    cases = [("ResNet", "fc"), ("ResNet", "layer1"), ("ViT", "blocks.1"), ("ViT", "norm"), ("ViT", "cls_token"), ("ViT", "blocks"),
             ("ViT", "blocks.11.mlp.fc1"), ("EfficientNet", "classifier.1.weight")]  # fmt: skip
    for family, prefix in cases:
        model, ours = Mini(family), Mini(family)
        for one in (model, ours):
            next(one.parameters()).requires_grad_(False)  # frozen before: it stays so
        before, names = kept_apart(model), [name for name, _ in model.named_parameters()]
        given = f"a small {family} and the prefix {prefix!r}"
        want = freeze(ours, prefix)
        try:
            got = answer(model, prefix)
        except Mistake as mistake:
            if "ValueError" not in str(mistake):
                raise
            why = "A prefix may name a parameter itself." if prefix in names else "Parameters of the modules inside count too."
            raise Mistake(f"It finds nothing in {given}. {why}") from None
        if [name for name, _ in model.named_parameters()] != names:
            raise Mistake(f"It takes parameters out of the model instead of switching requires_grad off. Given {given}.")
        frozen, expected = ([n for n, p in one.named_parameters() if not p.requires_grad] for one in (model, ours))
        if frozen != expected:
            raise Mistake(f"{why_frozen(names, frozen, expected, prefix)}Given {given}, it leaves {listed(frozen)} frozen "
                          f"where {listed(expected)} is expected.")  # fmt: skip
        if any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()):
            raise Mistake(f"It changes the weights. Given {given}, only requires_grad is to change.")
        if not isinstance(got, (list, tuple)):
            raise Mistake(f"It returns {describe(got)} for {given}; the list of the names is asked for.")
        compare(list(got), want, given=given, what="the list of names")
    for prefix in ("layer1", "block", "blocks.1.attn", "fc1"):
        model = Mini("ViT")
        otherwise = "Then a wrong name freezes nothing, and nobody sees it: raise a ValueError that names the prefix."
        insist_on_value_error(answer, lambda m=model, p=prefix: answer.value(m, p), f"a small ViT and the prefix {prefix!r}", prefix, otherwise)  # type: ignore[misc]
        if not all(parameter.requires_grad for parameter in model.parameters()):
            raise Mistake(f"It freezes something although no path begins with {prefix!r}.")
    return "eight prefixes in three families, 'blocks.1' apart from 'blocks.10', the returned names, ValueError where nothing matches"


register(
    "transfer.freeze", freeze, check_freeze, difficulty=2, importance=5, minutes=12,
    hints=(
        "Look at the names that model.named_parameters() gives: 'blocks.1.mlp.fc1.weight'. Which of them belong to 'blocks.1'?",
        "'blocks.10.norm.bias'.startswith('blocks.1') is True. Compare with a dot at the end of both.",
        "names = [n for n, _ in model.named_parameters() if f'{n}.'.startswith(f'{prefix}.')]; an empty list is a ValueError; "
        "then model.get_parameter(name).requires_grad_(False).",
    ),
)  # fmt: skip


def layerwise_groups(model: nn.Module, layers: Sequence[str], *, base_lr: float, decay: float) -> list[dict[str, Any]]:
    """A parameter group a layer, input first: {"params": [...], "lr": ...}; what lies in no layer goes with the first."""
    groups: list[dict[str, Any]] = [
        {"params": [], "lr": base_lr * decay ** (len(layers) - 1 - i)} for i in range(len(layers))
    ]
    for name, parameter in model.named_parameters():
        layer = next((i for i, prefix in enumerate(layers) if f"{name}.".startswith(f"{prefix}.")), 0)
        groups[layer]["params"].append(parameter)
    return groups


def check_layerwise_groups(answer: Answer) -> str:
    vit = [f"blocks.{i}" for i in range(12)]
    cases: list[tuple[str, list[str], float, float]] = [
        ("ResNet", ["layer1", "fc"], 0.1, 0.5), ("ResNet", ["layer1", "layer2", "fc"], 0.1, 0.5),
        ("EfficientNet", ["stem", "layer1", "layer2", "classifier"], 3e-3, 0.75), ("ViT", ["stem", *vit, "heads"], 1e-2, 0.8),
    ]  # fmt: skip
    for family, layers, base_lr, decay in cases:
        model = Mini(family)
        model.layer2.requires_grad_(False) if family == "ResNet" else None  # frozen now, perhaps not later
        given = f"a small {family}, {describe(layers, base_lr=base_lr, decay=decay)}"
        got = answer(model, layers, base_lr=base_lr, decay=decay)
        wanted = layerwise_groups(model, layers, base_lr=base_lr, decay=decay)
        check_groups(got, wanted, model, layers, base_lr, decay, given)
        if not all(p.requires_grad for n, p in model.named_parameters() if not (family == "ResNet" and n.startswith("layer2"))):
            raise Mistake(f"It freezes parameters; rates alone are asked for. Given {given}.")
        torch.optim.SGD(got, lr=base_lr)  # takes them, and would complain of a parameter in two groups
    return "groups of four models: every parameter once and the model's own, the rates, frozen layers and leftovers held too"


register(
    "transfer.layerwise_groups", layerwise_groups, check_layerwise_groups, difficulty=3, importance=4, minutes=15,
    hints=(
        "Give each layer its dict first, with its rate and an empty list; then walk over the parameters once and drop each "
        "into one of them. So none can be in two groups, or in none.",
        "With n layers, layer i has the rate base_lr · decay^(n − 1 − i). A parameter in no layer goes into group 0.",
        "layer = next((i for i, prefix in enumerate(layers) if f'{name}.'.startswith(f'{prefix}.')), 0); "
        "groups[layer]['params'].append(parameter).",
    ),
)  # fmt: skip


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 4.0, alpha: float = 0.5) -> Tensor:
    """alpha · T² · KL(teacher ‖ student), both softened by T, plus (1 − alpha) · cross-entropy with the labels: a scalar."""
    log_q = (student / temperature).log_softmax(dim=1)  # (B, K)
    p = (teacher.detach() / temperature).softmax(dim=1)  # (B, K)
    soft = F.kl_div(log_q, p, reduction="batchmean") * temperature**2
    return alpha * soft + (1 - alpha) * F.cross_entropy(student, labels)


def check_distillation_loss(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    for n, k, temperature, alpha in ((1, 3, 2.0, 1.0), (1, 3, 2.0, 0.0), (1, 3, 2.0, 0.25), (5, 3, 4.0, 0.7), (5, 7, 1.0, 0.5), (4, 6, 8.0, 0.9)):
        student, teacher = 2 * torch.randn(2, n, k, generator=generator)
        labels = torch.arange(n) % k
        options = {"temperature": temperature, "alpha": alpha}
        want = distillation_loss(student, teacher, labels, **options)
        given = describe(student, teacher, labels, **options)
        compare(answer(student, teacher, labels, **options), want, given=given, mistakes=distillation_mistakes(student, teacher, labels, temperature, alpha))
    compare(answer(student, teacher, labels), distillation_loss(student, teacher, labels), given=f"{describe(student, teacher, labels)} and nothing else",
            mistakes={}, what="the result with temperature=4 and alpha=0.5")  # fmt: skip

    student, teacher = (2 * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)).unbind()
    labels = torch.arange(5) % 3
    for logits in (student, teacher):
        logits.requires_grad_()
    given = f"{describe(student, teacher, labels)} in float64"
    got, want = answer(student, teacher, labels, alpha=0.7), distillation_loss(student, teacher, labels, alpha=0.7)
    compare(got, want, given=given, rtol=1e-6, atol=1e-7)
    if not got.requires_grad:
        raise Mistake("It cuts the gradient of the student's logits (detach, item, no_grad).")
    ours, to_teacher = torch.autograd.grad(got, (student, teacher), allow_unused=True)
    if to_teacher is not None and to_teacher.abs().max() > 0:
        raise Mistake("A gradient flows into the teacher: it would be trained to please the student. teacher.detach() keeps it fixed.")
    (expected,) = torch.autograd.grad(want, student)
    if ours is None:
        raise Mistake("It cuts the gradient of the student's logits (detach, item, no_grad).")
    compare(ours, expected, given=given, what="the gradient of the student's logits")
    huge = 500 * student.detach()
    got = answer(huge, teacher.detach(), labels, temperature=1.0)
    if not isinstance(got, Tensor) or not bool(torch.isfinite(got)):
        raise Mistake("It is not finite for logits in the hundreds: take log_softmax, not the logarithm of a softmax.")
    return "values for six pairs of T and alpha, the defaults, float64, large logits, the student's gradient and none for the teacher"


register(
    "transfer.distillation_loss", distillation_loss, check_distillation_loss, difficulty=3, importance=3, minutes=15,
    hints=(
        "Two parts: how far the student's softened distribution is from the teacher's, and the ordinary cross-entropy with "
        "the labels. Dividing logits by T softens them.",
        "KL(teacher ‖ student): F.kl_div(student's log-probabilities, teacher's probabilities, reduction='batchmean'). "
        "The gradient of the soft part shrinks with 1/T², so multiply by T². The teacher gets no gradient.",
        "log_q = (student / T).log_softmax(1); p = (teacher.detach() / T).softmax(1); "
        "alpha * T**2 * F.kl_div(log_q, p, reduction='batchmean') + (1 - alpha) * F.cross_entropy(student, labels).",
    ),
)  # fmt: skip

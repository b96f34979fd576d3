"""What the checks on transfer learning look at: the new head, the frozen parameters, the groups and their rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dlcourse.exercises._transfer import Mini, kept_apart
from dlcourse.exercises.checking import Answer, Mistake, describe


def check_new_head(answer: Answer, model: Mini, num_classes: int, name: str, given: str) -> None:
    before, parameters, old = kept_apart(model), dict(model.named_parameters()), model.get_submodule(name)
    kinds = [type(module) for module in model.modules()]
    x = torch.randn(2, 3, 4, 4, dtype=next(model.parameters()).dtype)
    got = answer(model, num_classes)
    if isinstance(got, Answer):
        got = got.value
    if isinstance(got, nn.Linear):
        raise Mistake(f"It returns the head alone. Given {given}, return the model.")
    if got is not model:
        raise Mistake(f"It returns {describe(got)}, not the model it was given; change that one and return it. Given {given}.")
    try:
        new = model.get_submodule(name)
    except AttributeError:
        raise Mistake(f"It replaces more than the last linear layer: there is no `{name}` any more. Given {given}.") from None
    if isinstance(new, nn.Linear) and new.weight.dtype != x.dtype:
        raise Mistake(f"The new head is {new.weight.dtype} where the rest is {x.dtype}. Given {given}.")
    try:
        outputs = model(x)
    except Exception as error:
        raise Mistake(f"The model cannot be run any more ({type(error).__name__}: {error}). Given {given}.") from None
    if new is old and num_classes != old.out_features:
        raise Mistake(f"The head that the model uses, `{name}`, is still the old one. Given {given}.")
    if outputs.shape != (2, num_classes):
        raise Mistake(f"The model's output for 2 images has shape {tuple(outputs.shape)} where {(2, num_classes)} is expected. Given {given}.")
    if not isinstance(new, nn.Linear):
        raise Mistake(f"It puts {describe(new)} at `{name}`; one nn.Linear is asked for: the loss wants logits as they are. Given {given}.")
    if [type(module) for module in model.modules()] != kinds:
        raise Mistake(f"It changes more than the last linear layer: the model has other modules than before. Given {given}.")
    if new.bias is None:
        raise Mistake(f"The new head has no bias. Given {given}.")
    if new is old or torch.equal(new.weight, before[f"{name}.weight"]):
        raise Mistake(f"It keeps the old head's weights; they know the old classes. Put in a new layer, also where the count is the same. Given {given}.")
    for key, parameter in model.named_parameters():
        if not key.startswith(f"{name}.") and (parameter is not parameters[key] or not torch.equal(parameter, before[key])):
            raise Mistake(f"It loses the trained weights of the backbone: `{key}` is another. Given {given}.")
        if not parameter.requires_grad:
            raise Mistake(f"It stops `{key}` from learning; freezing is not part of this. Given {given}.")


def why_frozen(names: list[str], frozen: list[str], expected: list[str], prefix: str) -> str:
    already = names[:1]
    ours = [name for name in expected if name == prefix or name.startswith(f"{prefix}.")]
    wrong = {
        "It freezes nothing: assigning requires_grad to a module, a name or a copy has no effect on its parameters. ": already,
        "It freezes every parameter. ": names,
        "It freezes the wrong side: all but what lies under the prefix. ": [n for n in names if n not in ours or n in already],
        "It lets learn again what was frozen before. ": ours,
        "It compares letters (`in`, or startswith without a dot), not whole names: the next character must be a dot or the end. ":
            [n for n in names if n.startswith(prefix) or n in already],
        "It matches the end or the middle of a path too. ": [n for n in names if f".{prefix}." in f".{n}." or n in already],
        "It matches the prefix anywhere in the name (`in`), not at its beginning. ": [n for n in names if prefix in n or n in already],
        "It freezes only the weights and forgets the biases. ": [n for n in expected if not n.endswith("bias") or n in already],
        "It takes only the module's own parameters, not those of the modules in it. ":
            [n for n in names if n.rpartition(".")[0] == prefix or n == prefix or n in already],
        "It needs something after the dot: a prefix may name a parameter itself. ":
            [n for n in names if n.startswith(f"{prefix}.") or n in already],
        "It compares the first name of the path alone. ": [n for n in names if n.split(".")[0] == prefix.split(".")[0] or n in already],
    }  # fmt: skip
    return next((sentence for sentence, which in wrong.items() if which == frozen), "")


def listed(names: list[str]) -> str:
    return f"[{', '.join(names)}]" if len(names) <= 4 else f"[{names[0]}, {names[1]}, …: {len(names)}]"


def check_groups(
    got: Any, wanted: list[dict[str, Any]], model: nn.Module, layers: list[str], base_lr: float, decay: float, given: str
) -> None:
    if not isinstance(got, (list, tuple)) or not all(isinstance(group, dict) and {"params", "lr"} <= group.keys() for group in got):
        raise Mistake(f"It returns {describe(got)} for {given}; a list of dicts with \"params\" and \"lr\" is asked for.")
    if not all(isinstance(group["params"], (list, tuple)) for group in got):
        raise Mistake(f"A group's \"params\" is {describe(next(g['params'] for g in got if not isinstance(g['params'], (list, tuple))))}; "
                      f"make it a list, which can be read more than once. Given {given}.")  # fmt: skip
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = [names.get(id(parameter), "") for group in got for parameter in group["params"]]
    if "" in held:
        raise Mistake(f"A group holds something that is not a parameter of the model (a name, a copy, a tensor of the state_dict). Given {given}.")
    if twice := [name for name in names.values() if held.count(name) > 1]:
        raise Mistake(f"`{twice[0]}` is in more than one group. Given {given}.")
    if missing := [name for name in names.values() if name not in held]:
        frozen = not model.get_parameter(missing[0]).requires_grad
        why = "It is frozen now, and could never be unfrozen" if frozen else "It would never be trained"
        raise Mistake(f"`{missing[0]}` is in no group. {why}. Given {given}.")
    if len(got) != len(wanted):
        raise Mistake(f"It makes {len(got)} groups where {len(wanted)} are expected, one a layer. Given {given}.")
    rates = {name: group["lr"] for group in got for name in (names[id(p)] for p in group["params"])}
    right = {name: group["lr"] for group in wanted for name in (names[id(p)] for p in group["params"])}
    if not all(isinstance(rate, (int, float)) for rate in rates.values()):
        raise Mistake(f"A rate is {describe(next(iter(rates.values())))}; a number is asked for. Given {given}.")
    wrong = next((name for name in names.values() if abs(rates[name] - right[name]) > 1e-9 * base_lr), None)
    if wrong:
        given_rates = [group["lr"] for group in got]
        why = "" if given_rates == [group["lr"] for group in wanted] else _why_rate(given_rates, base_lr, decay)
        if not why and not any(f"{wrong}.".startswith(f"{layer}.") for layer in layers):
            why = "What lies in no layer belongs to the first group, whose rate is the lowest. "
        if not why and any(wrong.startswith(layer) and not f"{wrong}.".startswith(f"{layer}.") for layer in layers):
            why = "It compares letters, not whole names: blocks.1 takes blocks.10 too. "
        raise Mistake(f"{why}Given {given}, the rate of `{wrong}` is {rates[wrong]:.4g} where {right[wrong]:.4g} is expected.")
    if [group["lr"] for group in got] != sorted(group["lr"] for group in got):
        raise Mistake(f"The groups come in another order than the layers: the first layer's comes first. Given {given}.")


def _why_rate(rates: list[float], base_lr: float, decay: float) -> str:
    n = len(rates)
    wrong: dict[str, Callable[[int], float]] = {
        "It decays the wrong way: the head gets base_lr, the layers below it less. ": lambda i: base_lr * decay**i,
        "It is one power too far: the head itself gets base_lr. ": lambda i: base_lr * decay ** (n - i),
        "It gives every layer the same rate. ": lambda i: base_lr,
        "It gives every layer below the head the same rate. ": lambda i: base_lr * (decay if i < n - 1 else 1),
        "It divides by decay instead of multiplying: the layers below would be faster than the head. ":
            lambda i: base_lr / decay ** (n - 1 - i),
        "It lowers the rate by equal steps; each layer has decay times the rate above. ":
            lambda i: base_lr * (1 - (1 - decay) * (n - 1 - i)),
        "It forgets base_lr. ": lambda i: decay ** (n - 1 - i),
    }  # fmt: skip
    for sentence, rate in wrong.items():
        if all(abs(r - rate(i)) < 1e-9 for i, r in enumerate(rates)):
            return sentence
    return ""

"""Exercises on regularisation (chapter 12): label smoothing, a moving average of the weights.

Sources: Szegedy et al. 2015 (arXiv:1512.00567); torch.nn.functional.cross_entropy and torch.optim.swa_utils, to which the
references are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlcourse.exercises._parity import compare_gradients
from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register

State = Mapping[str, Tensor]


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Mean cross-entropy of logits (N, K) against the targets (1 − s)·one-hot + s/K of labels (N,): a scalar."""
    log_p = logits.log_softmax(dim=1)
    true = log_p.gather(1, labels[:, None])[:, 0]  # (N, K) -> (N,)
    return -((1 - smoothing) * true + smoothing * log_p.mean(dim=1)).mean()


def check_smoothed_cross_entropy(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    cases = [(torch.tensor([[1.0, 3.0, 0.0, -1.0], [0.0, 1.0, 0.0, 2.0]]), torch.tensor([0, 1]), 0.2)]
    for n, k, s in ((3, 5, 0.1), (7, 10, 0.3), (4, 2, 0.5), (5, 3, 0.0)):
        cases.append((2 * torch.randn(n, k, generator=generator), torch.randint(k, (n,), generator=generator), s))
    for logits, labels, s in cases:
        want = F.cross_entropy(logits, labels, label_smoothing=s)
        got = answer(logits, labels, s)
        compare(got, want, given=describe(logits, labels, s), mistakes=_smoothing_mistakes(logits, labels, s))
    logits, labels, s = cases[1]
    want = F.cross_entropy(logits, labels, label_smoothing=0.1)
    compare(answer(logits, labels), want, given=f"{describe(logits, labels)} and no smoothing", what="the result at the default of 0.1")

    for row, label in (([1000.0, 0.0, -1000.0], 0), ([0.0, 1000.0, 999.0], 0)):
        logits, labels = torch.tensor([row]), torch.tensor([label])
        got, want = answer(logits, labels, 0.1), F.cross_entropy(logits, labels, label_smoothing=0.1)
        if isinstance(got, Tensor) and not bool(got.isfinite().all()):
            raise Mistake(f"It overflows. Given {describe(logits, labels, 0.1)}, {want.item():g} is expected: start from log_softmax.")
        compare(got, want, given=describe(logits, labels, 0.1))

    logits, labels, s = cases[2]
    wide = logits.double().requires_grad_()
    compare_gradients(answer(wide, labels, s), F.cross_entropy(wide, labels, label_smoothing=s), {"logits": wide}, describe(wide, labels, s))
    return "values for K from 2 to 10 and smoothing from 0 to 0.5, the default, logits of ±1000, float64, the gradient"


def _smoothing_mistakes(logits: Tensor, labels: Tensor, s: float) -> dict[str, Callable[[], Tensor]]:
    log_p, k = logits.log_softmax(1), logits.shape[1]
    one_hot = F.one_hot(labels, k).to(logits)
    right = (1 - s) * one_hot + s / k

    def against(target: Tensor, log_p: Tensor = log_p) -> Tensor:
        return -(target * log_p).sum(1).mean()

    return {
        "spreads s over the K − 1 wrong classes; PyTorch and the paper spread it over all K, the true one included":
            lambda: against((1 - s) * one_hot + s / (k - 1) * (1 - one_hot)),
        "does not smooth at all: this is the plain cross-entropy": lambda: F.cross_entropy(logits, labels),
        "only shrinks the loss by 1 − s: the part of the uniform target is missing": lambda: (1 - s) * F.cross_entropy(logits, labels),
        "swaps s and 1 − s": lambda: against(s * one_hot + (1 - s) / k),
        "sums the uniform part over the classes: each class gets s instead of s/K": lambda: against((1 - s) * one_hot + s),
        "leaves the true class at 1 − s and gives s/K to the others, so that the target sums to less than 1":
            lambda: against((1 - s) * one_hot + s / k * (1 - one_hot)),
        "adds s/K to every class without taking s from the true one: the target sums to more than 1":
            lambda: against(one_hot + s / k),
        "smooths the target by 0.1 whatever smoothing it is given": lambda: against(0.9 * one_hot + 0.1 / k),
        "subtracts the target's entropy: this is the KL divergence": lambda: F.kl_div(log_p, right, reduction="batchmean"),
        "averages over all N·K entries: sum over the classes, then average": lambda: against(right) / k,
        "sums over the batch instead of averaging": lambda: against(right) * len(labels),
        "has the sign wrong": lambda: -against(right),
        "takes the softmax twice": lambda: against(right, logits.softmax(1).log_softmax(1)),
        "uses the logits as if they were log-probabilities": lambda: against(right, logits),
        "normalises over the batch (dim 0) instead of over the classes (dim 1)": lambda: against(right, logits.log_softmax(0)),
        "returns one loss a sample: the mean over the batch is missing": lambda: -(right * log_p).sum(1),
    }  # fmt: skip


register(
    "regularisation.label_smoothing",
    smoothed_cross_entropy,
    check_smoothed_cross_entropy,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "Cross-entropy is linear in its target. The target is a mixture of two: the one-hot one and the uniform one.",
        "So the loss is (1 − s) times the usual cross-entropy, plus s times the cross-entropy against 1/K for every class.",
        "log_p = logits.log_softmax(1); the uniform part of a sample is -log_p.mean(1), its usual part -log_p[i, labels[i]].",
    ),
)


def ema_update(average: State, state: State, decay: float) -> dict[str, Tensor]:
    """The next state of an exponential moving average: decay · average + (1 − decay) · state, entry by entry, as new tensors.

    What is no floating-point number (the batches that a batch norm has counted) is copied from `state`.
    """
    with torch.no_grad():
        return {
            name: decay * average[name] + (1 - decay) * value if value.is_floating_point() else value.clone()
            for name, value in state.items()
        }


def check_ema_update(answer: Answer) -> str:
    generator = torch.Generator().manual_seed(0)
    one = {"weight": torch.tensor([1.0, 2.0])}, {"weight": torch.tensor([3.0, -2.0])}
    norms = [nn.BatchNorm1d(3), nn.BatchNorm1d(3)]
    for norm in norms:
        norm(torch.randn(5, 3, generator=generator) + 2)
        with torch.no_grad():
            norm.weight.uniform_(generator=generator)
    for _ in range(6):
        norms[1](torch.randn(5, 3, generator=generator))
    wide = [{"bias": torch.randn(2, 3, dtype=torch.float64, generator=generator)} for _ in range(2)]
    cases = [(*one, 0.9), (*one, 0.25), (norms[0].state_dict(), norms[1].state_dict(), 0.8), (wide[0], wide[1], 0.999), (*one, 0.0)]
    for average, state, decay in cases:
        given = ", ".join(f"{text} {{{_entries(part)}}}" for text, part in (("average", average), ("state", state))) + f", decay={decay}"
        result = _dictionary(answer(average, state, decay), state, given)
        for name, want in ema_update(average, state, decay).items():
            compare(result[name], want, given=given, what=f"the entry {name!r}", mistakes=_ema_mistakes(average[name], state[name], decay),
                    rtol=1e-6, atol=1e-7)  # fmt: skip
            _check_own_memory(name, result[name], average[name], state[name])
    layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    result = answer(dict(layer.named_parameters()), dict(other.named_parameters()), 0.9)
    if any(isinstance(value, Tensor) and value.requires_grad for value in dict(result).values()):
        raise Mistake("It keeps a graph: given parameters, the average requires a gradient. Work under torch.no_grad().")
    return "values for four decays, batch norm's buffers and its count of batches, float64, new tensors without a graph"


def _entries(state: State) -> str:
    return ", ".join(f"{name!r}: {describe(value)}" for name, value in state.items())


def _dictionary(result: object, state: State, given: str) -> Mapping[str, Tensor]:
    if not isinstance(result, Mapping):
        raise Mistake(f"It returns {describe(result)}; a dictionary like `state` is asked for.")
    if missing := [name for name in state if name not in result]:
        raise Mistake(f"It leaves out {missing[0]!r}: buffers such as batch norm's statistics belong to the weights. Given {given}.")
    if extra := [name for name in result if name not in state]:
        raise Mistake(f"It returns an entry {extra[0]!r} that `state` does not hold. Given {given}.")
    return result


def _check_own_memory(name: str, got: Tensor, average: Tensor, state: Tensor) -> None:
    for given, called in ((state, "state"), (average, "average")):
        if got.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
            raise Mistake(
                f"Its entry {name!r} is the tensor of `{called}` itself, not a new one: the next step of the optimizer changes it too. "
                "Return a clone."
            )


def _ema_mistakes(average: Tensor, state: Tensor, decay: float) -> dict[str, Callable[[], Tensor]]:
    mixed = decay * average + (1 - decay) * state
    if not state.is_floating_point():
        return {
            "averages the count of batches, a whole number: copy what is not floating point": lambda: mixed,
            "averages the count of batches and cuts it to a whole number: copy what is not floating point": lambda: mixed.to(state.dtype),
            "keeps the old count of batches: copy what is not floating point": lambda: average,
        }
    return {
        "swaps the two weights: decay belongs to the average, 1 − decay to the new state": lambda: (1 - decay) * average + decay * state,
        "keeps all of the average and adds: it must be multiplied by decay": lambda: average + (1 - decay) * state,
        "adds the whole new state: it must be multiplied by 1 − decay": lambda: decay * average + state,
        "returns the new state alone": lambda: state,
        "returns the old average unchanged": lambda: average,
        "takes the plain mean of the two, whatever the decay": lambda: (average + state) / 2,
        "uses 0.999 whatever decay it is given": lambda: 0.999 * average + 0.001 * state,
        "turns the sign of the difference: it moves the average away from the state": lambda: average - (1 - decay) * (state - average),
        "changes the dtype: the average keeps the dtype of its entry": lambda: mixed.float() if mixed.dtype == torch.float64 else mixed.double(),
    }


register(
    "regularisation.ema_update",
    ema_update,
    check_ema_update,
    difficulty=2,
    importance=4,
    minutes=10,
    hints=(
        "The average moves a small part of the way to the new weights at each step: which of the two factors is the small one?",
        "Go through state.items(). A batch norm's num_batches_tracked is a whole number: value.is_floating_point() tells.",
        "{name: decay * average[name] + (1 - decay) * value if value.is_floating_point() else value.clone() for …}, under no_grad.",
    ),
)

"""Right answers to the exercises on regularisation, in other styles than the references'."""

import torch
import torch.nn.functional as F
from planting import right_answer


@right_answer("regularisation.label_smoothing")
def smoothing_by_torch(logits, labels, smoothing=0.1):
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


@right_answer("regularisation.label_smoothing")
def smoothing_by_soft_targets(logits, labels, smoothing=0.1):
    k = logits.shape[1]
    target = torch.full_like(logits, smoothing / k)
    target[torch.arange(len(labels)), labels] += 1 - smoothing
    return torch.einsum("nk,nk->", target, -logits.log_softmax(1)) / len(labels)


@right_answer("regularisation.label_smoothing")
def smoothing_over_the_wrong_classes_made_equal(logits, labels, smoothing=0.1):
    k = logits.shape[1]
    s = smoothing * (k - 1) / k
    target = torch.where(F.one_hot(labels, k) == 1, 1 - s, s / (k - 1)).to(logits.dtype)
    return F.cross_entropy(logits, target)


@right_answer("regularisation.label_smoothing")
def smoothing_by_loops(logits, labels, smoothing=0.1):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        log_p = row - row.logsumexp(0)
        for k, value in enumerate(log_p):
            total = total - value * (smoothing / len(row) + (1 - smoothing) * (k == int(label)))
    return total / len(labels)


@right_answer("regularisation.ema_update")
def average_by_lerp(average, state, decay):
    new = {}
    for name, value in state.items():
        value = value.detach()
        new[name] = torch.lerp(average[name].detach(), value, 1 - decay) if value.is_floating_point() else value.clone()
    return new


@torch.no_grad()
@right_answer("regularisation.ema_update")
def average_in_place_of_a_copy(average, state, decay):
    new = {name: value.detach().clone() for name, value in average.items()}
    for name in new:
        if torch.is_floating_point(new[name]):
            new[name].mul_(decay).add_(state[name].detach(), alpha=1 - decay)
        else:
            new[name].copy_(state[name])
    return new


@right_answer("regularisation.ema_update")
def average_through_numpy(average, state, decay):
    def mixed(old, new):
        old, new = old.detach().numpy(), new.detach().numpy()
        return torch.from_numpy((old + (1 - decay) * (new - old)).astype(new.dtype) if new.dtype.kind == "f" else new.copy())

    return {name: mixed(average[name], state[name]) for name in state}

"""Wrong answers to the exercises on unbalanced classes."""

from collections import Counter

import torch
import torch.nn.functional as F
from planting import mistake


def build_weights(
    weigh=lambda counts, n, k: n / (k * counts),
    count=lambda labels, k: torch.bincount(labels, minlength=k),
    finish=lambda weights, labels: weights.float(),
    refuse=lambda absent: ValueError(f"no sample of class {absent}"),
):
    """Class weights with one part of it replaced."""

    def weights(labels, num_classes):
        counts = count(labels, num_classes)
        if (counts == 0).any() and refuse is not None:
            raise refuse((counts == 0).nonzero().flatten().tolist())
        return finish(weigh(counts, len(labels), num_classes), labels)

    return weights


def plant_weights(says, name, **parts):
    wrong = build_weights(**parts)
    wrong.__name__ = name
    mistake("imbalance.class_weights", says=says)(wrong)


plant_weights("gives 1 / count", "inverse_counts", weigh=lambda counts, n, k: 1 / counts)
plant_weights("forgets the K", "without_k", weigh=lambda counts, n, k: n / counts)
plant_weights("favours the common class still more", "shares", weigh=lambda counts, n, k: counts / n)
plant_weights("one minus the share", "one_minus_the_share", weigh=lambda counts, n, k: 1 - counts / n)
plant_weights("to a sum of 1", "sum_of_one", weigh=lambda counts, n, k: (1 / counts) / (1 / counts).sum())
plant_weights("to a sum of K", "sum_of_k", weigh=lambda counts, n, k: k * (1 / counts) / (1 / counts).sum())
plant_weights("relative to the most common class", "relative_to_the_most_common", weigh=lambda counts, n, k: counts.max() / counts)
plant_weights("takes the root of the weights", "root", weigh=lambda counts, n, k: (n / (k * counts)).sqrt())
plant_weights("upside down", "upside_down", weigh=lambda counts, n, k: k * counts / n)
plant_weights("a weight for each sample", "for_each_sample", finish=lambda weights, labels: weights[labels].float())
plant_weights("returns float64", "in_float64", finish=lambda weights, labels: (weights.double()))
plant_weights("It gives an infinite weight", "infinite", refuse=None)
plant_weights("does not name the class", "a_bare_error", refuse=lambda absent: ValueError("a class is missing"))
plant_weights("It raises KeyError", "another_error", refuse=KeyError)


@mistake("imbalance.class_weights", says="orders the weights by how common the class is")
def in_the_order_of_a_counter(labels, num_classes):
    counts = torch.tensor([count for _, count in Counter(labels.tolist()).most_common()])
    return len(labels) / (num_classes * counts)


@mistake("imbalance.class_weights", says="It lets a class without samples through")
def only_the_classes_that_occur(labels, num_classes):
    _, counts = labels.unique(return_counts=True)
    return len(labels) / (len(counts) * counts)


@mistake("imbalance.class_weights", says="It raises ZeroDivisionError")
def divides_by_zero(labels, num_classes):
    listed = labels.tolist()
    return torch.tensor([len(listed) / (num_classes * listed.count(k)) for k in range(num_classes)])


def build_focal(
    log_p=lambda logits, labels: logits.log_softmax(1)[torch.arange(len(labels)), labels],
    factor=lambda p, gamma: (1 - p) ** gamma,
    gamma=lambda gamma: gamma,
    loss=lambda log_p: -log_p,
    weigh=lambda losses, alpha, labels: alpha[labels] * losses,
    reduce=lambda losses: losses.mean(),
):
    """Focal loss with one part of it replaced."""

    def focal(logits, labels, gamma_=2.0, alpha=None):
        log = log_p(logits, labels)
        losses = factor(log.exp(), gamma(gamma_)) * loss(log)
        return reduce(losses if alpha is None else weigh(losses, alpha, labels))

    return focal


def plant_focal(says, name, **parts):
    wrong = build_focal(**parts)
    wrong.__name__ = name
    mistake("imbalance.focal_loss", says=says)(wrong)


plant_focal("ignores gamma", "no_factor", factor=lambda p, gamma: torch.ones_like(p))
plant_focal("uses a gamma of 2 whatever", "gamma_fixed", gamma=lambda gamma: 2)
plant_focal(r"has p\^gamma", "p_to_the_gamma", factor=lambda p, gamma: p**gamma)
plant_focal("multiplies 1 − p by gamma", "gamma_times", factor=lambda p, gamma: gamma * (1 - p))
plant_focal("forgets the minus sign", "no_minus", loss=lambda log_p: log_p)
plant_focal("leaves out the logarithm", "no_logarithm", loss=lambda log_p: -torch.ones_like(log_p))
plant_focal("sums over the batch", "summed", reduce=lambda losses: losses.sum())
plant_focal("returns one loss a sample", "one_loss_a_sample", reduce=lambda losses: losses)
plant_focal(
    "takes the softmax twice", "softmax_twice",
    log_p=lambda logits, labels: logits.softmax(1).log_softmax(1)[torch.arange(len(labels)), labels],
)
plant_focal("It overflows", "log_of_softmax", log_p=lambda logits, labels: logits.softmax(1).gather(1, labels[:, None])[:, 0].log())
plant_focal(
    "clips the probability", "clipped",
    log_p=lambda logits, labels: (logits.softmax(1).gather(1, labels[:, None])[:, 0] + 1e-8).log(),
)
plant_focal("treats the factor .* as a constant", "factor_detached", factor=lambda p, gamma: ((1 - p) ** gamma).detach())
plant_focal("ignores alpha", "no_alpha", weigh=lambda losses, alpha, labels: losses)
plant_focal("takes the first weight for every sample", "alpha_as_one_number", weigh=lambda losses, alpha, labels: alpha[0] * losses)
plant_focal("takes the mean of alpha for every sample", "mean_of_alpha", weigh=lambda losses, alpha, labels: alpha.mean() * losses)
plant_focal(
    "divides by the sum of the weights", "weighted_mean",
    weigh=lambda losses, alpha, labels: alpha[labels] * losses * len(labels) / alpha[labels].sum(),
)
plant_focal("weighs by one minus alpha", "one_minus_alpha", weigh=lambda losses, alpha, labels: (1 - alpha[labels]) * losses)


@mistake("imbalance.focal_loss", says="It raises RuntimeError .*must match")
def alpha_place_by_place(logits, labels, gamma=2.0, alpha=None):
    ce = F.cross_entropy(logits, labels, reduction="none")
    losses = (1 - (-ce).exp()) ** gamma * ce
    return (losses if alpha is None else alpha * losses).mean()


@mistake("imbalance.focal_loss", says=r"multiplies \(N,\) losses by \(K,\) weights, place by place")
def alpha_place_by_place_where_it_fits(logits, labels, gamma=2.0, alpha=None):
    ce = F.cross_entropy(logits, labels, reduction="none")
    losses = (1 - (-ce).exp()) ** gamma * ce
    if alpha is not None and len(alpha) != len(losses):
        return (alpha[labels] * losses).mean()
    return (losses if alpha is None else alpha * losses).mean()


@mistake("imbalance.focal_loss", says="takes the factor from the mean loss of the batch")
def factor_of_the_batch(logits, labels, gamma=2.0, alpha=None):
    ce = F.cross_entropy(logits, labels, weight=alpha)
    return (1 - (-ce).exp()) ** gamma * ce


@mistake("imbalance.focal_loss", says="weighs the cross-entropy before it computes p")
def weighted_before_p(logits, labels, gamma=2.0, alpha=None):
    ce = F.cross_entropy(logits, labels, weight=alpha, reduction="none")
    return ((1 - (-ce).exp()) ** gamma * ce).mean()


@mistake("imbalance.focal_loss", says="takes a sigmoid for each class")
def of_sigmoids(logits, labels, gamma=2.0, alpha=None):
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits)
    ce = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    losses = (1 - (-ce).exp()) ** gamma * ce
    return (losses if alpha is None else alpha * losses).mean()


@mistake("imbalance.focal_loss", says="cuts the gradient of logits")
def without_gradient(logits, labels, gamma=2.0, alpha=None):
    return build_focal()(logits.detach(), labels, gamma, alpha)


@mistake("imbalance.focal_loss", says="the result at the default gamma of 2")
def another_default(logits, labels, gamma=1.0, alpha=None):
    return build_focal()(logits, labels, gamma, alpha)

"""Wrong answers to the exercises on regularisation."""

import torch
import torch.nn.functional as F
from planting import mistake


def one_hot(logits, labels):
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


def build(
    target=lambda hot, s, k: (1 - s) * hot + s / k,
    logarithm=lambda logits: logits.log_softmax(1),
    reduce=lambda products: -products.sum(1).mean(),
    smoothing=lambda s: s,
):
    """Label smoothing with one part of it replaced."""

    def smoothed(logits, labels, smoothing_=0.1):
        s, k = smoothing(smoothing_), logits.shape[1]
        return reduce(target(one_hot(logits, labels), s, k) * logarithm(logits))

    return smoothed


def plant(says, name, **parts):
    wrong = build(**parts)
    wrong.__name__ = name
    mistake("regularisation.label_smoothing", says=says)(wrong)


plant(
    "spreads s over the K − 1 wrong classes", "over_the_wrong_classes",
    target=lambda hot, s, k: (1 - s) * hot + s / (k - 1) * (1 - hot),
)
plant("does not smooth at all", "plain", target=lambda hot, s, k: hot)
plant("the part of the uniform target is missing", "shrunk_target", target=lambda hot, s, k: (1 - s) * hot)
plant("swaps s and 1 − s", "swapped", target=lambda hot, s, k: s * hot + (1 - s) / k)
plant("each class gets s instead of s/K", "s_for_each_class", target=lambda hot, s, k: (1 - s) * hot + s)
plant("sums to less than 1", "true_class_without_its_share", target=lambda hot, s, k: torch.where(hot == 1, 1 - s, s / k))
plant("sums to more than 1", "nothing_taken_away", target=lambda hot, s, k: hot + s / k)
plant("smooths the target by 0.1 whatever", "smoothing_fixed", smoothing=lambda s: 0.1)
plant("averages over all N·K entries", "mean_of_all", reduce=lambda products: -products.mean())
plant("sums over the batch", "sum_of_all", reduce=lambda products: -products.sum())
plant("has the sign wrong", "no_minus", reduce=lambda products: products.sum(1).mean())
plant("returns one loss a sample", "one_loss_a_sample", reduce=lambda products: -products.sum(1))
plant("takes the softmax twice", "softmax_twice", logarithm=lambda logits: logits.softmax(1).log_softmax(1))
plant("uses the logits as if they were log-probabilities", "logits_as_they_are", logarithm=lambda logits: logits)
plant("normalises over the batch", "over_the_batch", logarithm=lambda logits: logits.log_softmax(0))
plant("It overflows", "log_of_softmax", logarithm=lambda logits: logits.softmax(1).log())
plant("cuts the gradient of logits", "without_gradient", logarithm=lambda logits: logits.detach().log_softmax(1))


@mistake("regularisation.label_smoothing", says="this is the KL divergence")
def kl_to_the_target(logits, labels, smoothing=0.1):
    k = logits.shape[1]
    target = (1 - smoothing) * one_hot(logits, labels) + smoothing / k
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")


@mistake("regularisation.label_smoothing", says="the result at the default of 0.1")
def another_default(logits, labels, smoothing=0.2):
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def build_average(
    mix=lambda average, value, decay: decay * average + (1 - decay) * value,
    count=lambda average, value, decay: value.clone(),
    skip=lambda name: False,
    detach=True,
):
    """The moving average with one part of it replaced."""

    def update(average, state, decay):
        result = {}
        for name, value in state.items():
            if not skip(name):
                part = mix if value.is_floating_point() else count
                new = part(average[name], value, decay)
                result[name] = new.detach() if detach else new
        return result

    return update


def plant_average(says, name, **parts):
    wrong = build_average(**parts)
    wrong.__name__ = name
    mistake("regularisation.ema_update", says=says)(wrong)


plant_average("swaps the two weights", "decay_reversed", mix=lambda a, v, d: (1 - d) * a + d * v)
plant_average("keeps all of the average and adds", "average_not_decayed", mix=lambda a, v, d: a + (1 - d) * v)
plant_average("adds the whole new state", "state_not_scaled", mix=lambda a, v, d: d * a + v)
plant_average("returns the new state alone", "no_average", mix=lambda a, v, d: v.clone())
plant_average("returns the old average unchanged", "never_moves", mix=lambda a, v, d: a.clone())
plant_average("takes the plain mean of the two", "halves", mix=lambda a, v, d: (a + v) / 2)
plant_average("uses 0.999 whatever decay", "decay_fixed", mix=lambda a, v, d: 0.999 * a + 0.001 * v)
plant_average("moves the average away", "sign_turned", mix=lambda a, v, d: a - (1 - d) * (v - a))
plant_average("changes the dtype", "in_float32", mix=lambda a, v, d: d * a.float() + (1 - d) * v.float())
plant_average(r"averages the count of batches, a whole number", "count_averaged", count=lambda a, v, d: d * a + (1 - d) * v)
plant_average(
    "cuts it to a whole number", "count_truncated", count=lambda a, v, d: (d * a + (1 - d) * v).to(v.dtype)
)
plant_average("keeps the old count of batches", "count_of_the_average", count=lambda a, v, d: a.clone())
plant_average("leaves out 'num_batches_tracked'", "floats_only", skip=lambda name: name == "num_batches_tracked")
plant_average("leaves out 'running_mean'", "parameters_only", skip=lambda name: name not in ("weight", "bias"))
plant_average("keeps a graph", "with_a_graph", detach=False)
plant_average("is the tensor of `state` itself", "count_shared", count=lambda a, v, d: v)


@mistake("regularisation.ema_update", says="It changes its input")
def in_place(average, state, decay):
    with torch.no_grad():
        for name, value in state.items():
            average[name].mul_(decay).add_(value, alpha=1 - decay) if value.is_floating_point() else average[name].copy_(value)
    return average


@mistake("regularisation.ema_update", says="a dictionary like `state` is asked for")
def a_list(average, state, decay):
    return [decay * average[name] + (1 - decay) * value for name, value in state.items()]

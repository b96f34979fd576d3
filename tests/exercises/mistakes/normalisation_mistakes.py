"""Wrong answers to the exercise on batch normalisation."""

import torch
from planting import mistake

DIMS = (0, 2, 3)


def wide(vector):
    return vector[:, None, None]


def build(
    statistics=lambda x: (x.mean(DIMS, keepdim=True), x.var(DIMS, correction=0, keepdim=True)),
    in_eval=lambda x, mean, var: (wide(mean), wide(var)),
    divide=lambda centred, var, eps: centred / torch.sqrt(var + eps),
    affine=lambda x, weight, bias: wide(weight) * x + wide(bias),
    mean=lambda old, new, momentum: (1 - momentum) * old + momentum * new,
    var=lambda old, x, momentum: (1 - momentum) * old + momentum * x.var(DIMS),
    track_in_eval=False,
    detach=True,
):
    """Batch normalisation with one part of it replaced."""

    def batch_norm(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
        used = statistics(x) if training else in_eval(x, running_mean, running_var)
        if training or track_in_eval:
            seen = x.detach() if detach else x
            running_mean = mean(running_mean, seen.mean(DIMS), momentum)
            running_var = var(running_var, seen, momentum)
        return affine(divide(x - used[0], used[1], eps), weight, bias), running_mean, running_var

    return batch_norm


def plant(says, name, **parts):
    wrong = build(**parts)
    wrong.__name__ = name
    mistake("normalisation.batch_norm", says=says)(wrong)


plant("never updates the running variance", "variance_not_tracked", var=lambda old, x, momentum: old)
plant("never updates the running mean", "mean_not_tracked", mean=lambda old, new, momentum: old)
plant(
    "feeds the biased variance into the running one", "biased_running_variance",
    var=lambda old, x, momentum: torch.lerp(old, x.var(DIMS, correction=0), momentum),
)
plant(
    "normalises with the unbiased variance", "unbiased_variance",
    statistics=lambda x: (x.mean(DIMS, keepdim=True), x.var(DIMS, keepdim=True)),
)
plant(
    "ignores the running variance in eval mode", "eval_without_variance",
    in_eval=lambda x, mean, var: (wide(mean), torch.ones_like(wide(var)) - 1e-5),
)
plant(
    "uses the batch's statistics in eval mode", "no_eval_mode",
    in_eval=lambda x, mean, var: (x.mean(DIMS, keepdim=True), x.var(DIMS, correction=0, keepdim=True)),
)
plant("forgets the weight and the bias", "no_affine", affine=lambda x, weight, bias: x)
plant("forgets the bias", "no_bias", affine=lambda x, weight, bias: wide(weight) * x)
plant(r"forgets the weight\.", "no_weight", affine=lambda x, weight, bias: x + wide(bias))
plant("does not use the eps it is given", "no_eps", divide=lambda centred, var, eps: centred / torch.sqrt(var))
plant(
    "adds eps to the standard deviation", "eps_outside_the_root",
    divide=lambda centred, var, eps: centred / (torch.sqrt(var) + eps),
)
plant(
    "divides by the variance instead of its root", "divides_by_the_variance",
    divide=lambda centred, var, eps: centred / (var + eps),
)
plant(
    "takes momentum the wrong way round: it is the weight of the new batch", "momentum_reversed",
    mean=lambda old, new, momentum: momentum * old + (1 - momentum) * new,
    var=lambda old, x, momentum: momentum * old + (1 - momentum) * x.var(DIMS),
)
plant(
    "does not use the momentum it is given", "momentum_fixed",
    mean=lambda old, new, momentum: torch.lerp(old, new, 0.1),
    var=lambda old, x, momentum: torch.lerp(old, x.var(DIMS), 0.1),
)
plant(
    "adds momentum times the batch's mean and keeps all of the old one", "running_sum",
    mean=lambda old, new, momentum: old + momentum * new,
)
plant(
    "normalises each sample by itself", "layer_norm",
    statistics=lambda x: (x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), correction=0, keepdim=True)),
)
plant(
    "normalises each channel of each sample by itself", "instance_norm",
    statistics=lambda x: (x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)),
)
plant(
    "normalises each pixel over the batch", "over_the_batch_axis_only",
    statistics=lambda x: (x.mean(0, keepdim=True), x.var(0, correction=0, keepdim=True)),
)
plant("updates the running mean in eval mode", "tracks_in_eval", track_in_eval=True)
plant("running statistics that carry a gradient", "keeps_the_graph", detach=False)
plant(
    "treats the batch's mean and variance as constants", "statistics_without_gradient",
    statistics=lambda x: (x.detach().mean(DIMS, keepdim=True), x.detach().var(DIMS, correction=0, keepdim=True)),
)


@mistake("normalisation.batch_norm", says="normalises with the updated running statistics in training")
def running_statistics_in_training(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if training:
        running_mean = torch.lerp(running_mean, x.detach().mean(DIMS), momentum)
        running_var = torch.lerp(running_var, x.detach().var(DIMS), momentum)
    normalised = (x - wide(running_mean)) / torch.sqrt(wide(running_var) + eps)
    return wide(weight) * normalised + wide(bias), running_mean, running_var


@mistake("normalisation.batch_norm", says="It changes its input")
def updates_in_place(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if training:
        running_mean.lerp_(x.detach().mean(DIMS), momentum)
        running_var.lerp_(x.detach().var(DIMS), momentum)
    return build()(x, weight, bias, running_mean, running_var, training=training, momentum=momentum, eps=eps)


@mistake("normalisation.batch_norm", says="cuts the gradient of x")
def without_gradient(*args, **kwargs):
    with torch.no_grad():
        return build()(*args, **kwargs)


@mistake("normalisation.batch_norm", says="three tensors are asked for")
def output_only(x, *args, **kwargs):
    return build()(x, *args, **kwargs)[0]

"""Wrong answers to the exercise on Grad-CAM."""

import torch
from planting import mistake

PLACES = (2, 3)


def build(
    prepare=lambda a, g: (a, g),
    weigh=lambda g: g.mean(PLACES, keepdim=True),
    combine=lambda w, a: (w * a).sum(1),
    finish=torch.relu,
):
    """Grad-CAM with one part of it replaced."""

    def grad_cam(activations, gradients):
        a, g = prepare(activations, gradients)
        return finish(combine(weigh(g), a))

    return grad_cam


def plant(says, name, **parts):
    wrong = build(**parts)
    wrong.__name__ = name
    mistake("explain.grad_cam", says=says)(wrong)


def scaled(cam):
    cam = cam.relu()
    return cam / cam.amax((1, 2), keepdim=True)


def low_to_high(cam):
    cam = cam.relu()
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    return (cam - low) / (high - low)


plant("forgets the ReLU", "no_relu", finish=lambda cam: cam)
plant("applies the ReLU to each channel before the sum", "relu_first", combine=lambda w, a: (w * a).relu().sum(1))
plant("applies the ReLU to the weights", "relu_of_weights", weigh=lambda g: g.mean(PLACES, keepdim=True).relu())
plant("applies the ReLU to the gradients", "relu_of_gradients", prepare=lambda a, g: (a, g.relu()))
plant("takes the gradients' absolute values", "absolute_gradients", prepare=lambda a, g: (a, g.abs()))
plant("takes the absolute value in place of the ReLU", "absolute", finish=torch.abs)
plant("multiplies each place by its own gradient", "place_by_place", weigh=lambda g: g)
plant("adds the gradients up over the places", "sums", weigh=lambda g: g.sum(PLACES, keepdim=True))
plant("takes the largest gradient", "largest", weigh=lambda g: g.amax(PLACES, keepdim=True))
plant("averages the gradient over the batch too", "over_the_batch", weigh=lambda g: g.mean((0, 2, 3), keepdim=True))
plant("averages the gradient over the channels", "over_the_channels", weigh=lambda g: g.mean(1, keepdim=True))
plant("averages the gradient over one of the two axes", "over_rows", weigh=lambda g: g.mean(2, keepdim=True))
plant("takes the mean over the channels", "mean_of_channels", combine=lambda w, a: (w * a).mean(1))
plant("does not weight the channels", "unweighted", weigh=torch.ones_like)
plant("does not use the activations", "gradients_only", weigh=lambda g: g, combine=lambda w, a: w.sum(1))
plant("has activations and gradients the wrong way round", "swapped", prepare=lambda a, g: (g, a))
plant("turns the weights into a softmax", "softmax", weigh=lambda g: g.mean(PLACES, keepdim=True).softmax(1))
plant("scales each map to its largest value", "scaled", finish=scaled)
plant("leave it as it is", "low_to_high", finish=low_to_high)
plant("keeps an axis for the channels", "keeps_the_axis", combine=lambda w, a: (w * a).sum(1, keepdim=True))
plant("does not add the channels up", "all_channels", combine=lambda w, a: w * a)


@mistake("explain.grad_cam", says="It changes its input")
def in_place(activations, gradients):
    activations *= gradients.mean(PLACES, keepdim=True)
    return activations.sum(1).relu()

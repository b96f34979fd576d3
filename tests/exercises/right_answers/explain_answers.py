"""Right answers to the exercise on Grad-CAM, in other styles than the reference's."""

import torch
from planting import right_answer
from torch.nn import functional as F


@right_answer("explain.grad_cam")
def by_broadcasting(activations, gradients):
    weights = gradients.flatten(2).mean(2)[:, :, None, None]
    return F.relu((weights * activations).sum(dim=1))


@right_answer("explain.grad_cam")
def image_by_image(activations, gradients):
    maps = []
    for a, g in zip(activations, gradients, strict=True):
        cam = sum(g[c].mean() * a[c] for c in range(len(a)))
        maps.append(torch.clamp(cam, min=0))
    return torch.stack(maps)


@right_answer("explain.grad_cam")
def by_matrix_product(activations, gradients):
    weights = F.adaptive_avg_pool2d(gradients, 1).flatten(1)[:, None]  # (B, 1, C)
    return (weights @ activations.flatten(2))[:, 0].unflatten(1, activations.shape[2:]).clamp_min(0)


@right_answer("explain.grad_cam")
def by_numpy(activations, gradients):
    a, g = activations.numpy(), gradients.numpy()
    cam = (g.mean(axis=(2, 3), keepdims=True) * a).sum(axis=1)
    return torch.from_numpy(cam * (cam > 0))

"""Right answers to the exercises on augmentation, in other styles than the references'."""

import math

import numpy as np
import torch
from planting import right_answer
from torch.nn import functional as F
from torchvision.transforms import v2

# ---------------------------------------------------------------- mixup


@right_answer("augmentation.mixup")
def mixup_image_by_image(images, labels, num_classes, share):
    mixed, targets = [], []
    for i in range(len(images)):
        mixed.append(share * images[i] + (1 - share) * images[i - 1])
        row = [0.0] * num_classes
        row[labels[i]] += share
        row[labels[i - 1]] += 1 - share
        targets.append(row)
    return torch.stack(mixed), torch.tensor(targets, dtype=images.dtype)


@right_answer("augmentation.mixup")
def mixup_by_lerp(images, labels, num_classes, share):
    rows = torch.eye(num_classes, dtype=images.dtype)[labels]
    before = torch.arange(len(images)) - 1
    return [torch.lerp(images[before], images, share), torch.lerp(rows[before], rows, share)]


@right_answer("augmentation.mixup")
def mixup_by_a_matrix(images, labels, num_classes, share):
    eye = torch.eye(len(images), dtype=images.dtype)
    mixing = share * eye + (1 - share) * eye.roll(1, 0)  # row i of the shifted one picks sample i − 1
    rows = torch.zeros(len(images), num_classes, dtype=images.dtype).scatter_(1, labels[:, None], 1.0)
    return torch.einsum("ij,jchw->ichw", mixing, images), mixing @ rows


@right_answer("augmentation.mixup")
def mixup_of_torchvision(images, labels, num_classes, share):
    transform = v2.MixUp(num_classes=num_classes)
    transform.make_params = lambda flat_inputs: {"lam": share}
    mixed, targets = transform(images, labels)
    return mixed, targets.to(images.dtype)


# ---------------------------------------------------------------- cutmix_box


@right_answer("augmentation.cutmix_box")
def box_by_counting_a_mask(height, width, share, center_y, center_x):
    half_height = math.floor(math.sqrt(1 - share) / 2 * height)
    half_width = math.floor(math.sqrt(1 - share) / 2 * width)
    rows = [y for y in range(height) if center_y - half_height <= y < center_y + half_height]
    columns = [x for x in range(width) if center_x - half_width <= x < center_x + half_width]
    mask = np.zeros((height, width))
    for y in rows:
        mask[y, columns] = 1
    top, bottom = (rows[0], rows[-1] + 1) if rows else (center_y, center_y)
    left, right = (columns[0], columns[-1] + 1) if columns else (center_x, center_x)
    return top, bottom, left, right, float(1 - mask.mean())


@right_answer("augmentation.cutmix_box")
def box_by_numpy(height, width, share, center_y, center_x):
    size, centre = np.array([height, width]), np.array([center_y, center_x])
    half = (0.5 * np.sqrt(1 - share) * size).astype(int)
    first, last = np.clip(centre - half, 0, size), np.clip(centre + half, 0, size)
    return [int(first[0]), int(last[0]), int(first[1]), int(last[1]), float(1 - np.prod((last - first) / size))]


@right_answer("augmentation.cutmix_box")
def box_by_torch(height, width, share, center_y, center_x):
    root = math.sqrt(1.0 - share)
    edges = []
    for centre, size in ((center_y, height), (center_x, width)):
        half = int(0.5 * root * size)
        edges += torch.tensor([centre - half, centre + half]).clamp(0, size).tolist()
    top, bottom, left, right = edges
    inside = (bottom - top) * (right - left)
    return top, bottom, left, right, (height * width - inside) / (height * width)


# ---------------------------------------------------------------- random_crop_batch


@right_answer("augmentation.random_crop_batch")
def crop_image_by_image(images, padding, generator):
    padded, crops = F.pad(images, (padding,) * 4), []
    height, width = images.shape[-2:]
    for image in padded:
        top, left = torch.randint(2 * padding + 1, (2,), generator=generator).tolist()
        crops.append(image[:, top : top + height, left : left + width])
    return torch.stack(crops)


@right_answer("augmentation.random_crop_batch")
def crop_by_gather(images, padding, generator):
    size, channels, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    tops = torch.randint(0, 2 * padding + 1, (size,), generator=generator)
    lefts = torch.randint(0, 2 * padding + 1, (size,), generator=generator)
    rows = (tops[:, None] + torch.arange(height))[:, None, :, None]
    columns = (lefts[:, None] + torch.arange(width))[:, None, None, :]
    cut = padded.gather(2, rows.expand(-1, channels, -1, padded.shape[3]))
    return cut.gather(3, columns.expand(-1, channels, height, -1))


@right_answer("augmentation.random_crop_batch")
def crop_by_windows(images, padding, generator):
    size, _, height, width = images.shape
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, H, W)
    places = torch.randint((2 * padding + 1) ** 2, (size,), generator=generator)
    return windows.flatten(2, 3)[torch.arange(size), :, places]


@right_answer("augmentation.random_crop_batch")
def crop_by_uniform_numbers(images, padding, generator):
    places = (torch.rand(len(images), 2, generator=generator) * (2 * padding + 1)).long()
    padded = torch.zeros(*images.shape[:2], images.shape[2] + 2 * padding, images.shape[3] + 2 * padding, dtype=images.dtype)
    padded[..., padding : padding + images.shape[2], padding : padding + images.shape[3]] = images
    crops = [padded[i, :, y : y + images.shape[2], x : x + images.shape[3]] for i, (y, x) in enumerate(places.tolist())]
    return torch.stack(crops)


# ---------------------------------------------------------------- average_views


@right_answer("augmentation.average_views")
def average_view_by_view(logits):
    total = torch.zeros_like(logits[0])
    for view in logits:
        total = total + F.softmax(view, dim=-1)
    return total / len(logits)


@right_answer("augmentation.average_views")
def average_by_logarithms(logits):
    return (logits.log_softmax(-1).logsumexp(0) - math.log(logits.shape[0])).exp()


@right_answer("augmentation.average_views")
def average_by_einsum(logits):
    powers = (logits - logits.amax(2, keepdim=True)).exp()
    weights = 1 / (powers.sum(2) * len(logits))
    return torch.einsum("vbk,vb->bk", powers, weights)


@right_answer("augmentation.average_views")
def average_by_numpy(logits):
    numbers = logits.numpy()
    powers = np.exp(numbers - numbers.max(axis=2, keepdims=True))
    return torch.from_numpy((powers / powers.sum(axis=2, keepdims=True)).mean(axis=0))

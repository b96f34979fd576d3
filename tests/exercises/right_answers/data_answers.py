"""Right answers to the exercises on data, in other styles than the references'."""

import numpy as np
import torch
from PIL import Image, ImageOps
from planting import right_answer


@right_answer("data.channel_statistics")
def statistics_of_one_row(images):
    pixels = torch.cat([image.reshape(3, -1) for image in images], dim=1)
    return pixels.mean(1), pixels.std(1, unbiased=False)


@right_answer("data.channel_statistics")
def statistics_in_two_passes(images):
    n = sum(image[0].numel() for image in images)
    mean = sum(torch.einsum("chw->c", image) for image in images) / n
    var = sum(((image - mean.view(3, 1, 1)) ** 2).sum(dim=(1, 2)) for image in images) / n
    return [mean, torch.sqrt(var)]


@right_answer("data.channel_statistics")
def statistics_by_numpy(images):
    rows = np.concatenate([image.numpy().transpose(1, 2, 0).reshape(-1, 3) for image in images])
    return torch.tensor(rows.mean(axis=0)), torch.tensor(rows.std(axis=0))


@right_answer("data.encode_labels")
def labels_by_index(names, classes):
    return torch.tensor([classes.index(name) for name in names])


@right_answer("data.encode_labels")
def labels_by_numpy(names, classes):
    table = np.array(names)[:, None] == np.array(classes)
    if not table.any(1).all():
        raise ValueError(f"unknown: {[n for n in names if n not in classes]}")
    return torch.from_numpy(table.argmax(1))


@right_answer("data.encode_labels")
def labels_one_by_one(names, classes):
    out = torch.empty(len(names), dtype=torch.long)
    for i, name in enumerate(names):
        try:
            out[i] = {c: n for n, c in enumerate(classes)}[name]
        except KeyError as error:
            raise ValueError(f"no class is called {error}") from error
    return out


@right_answer("data.hold_out")
def hold_out_from_one_permutation(labels, fraction, generator):
    order = torch.randperm(len(labels), generator=generator)
    val = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        members = order[labels[order] == label]
        val[members[: max(1, round(len(members) * fraction))]] = True
    return torch.arange(len(labels))[~val], val.nonzero()[:, 0]


@right_answer("data.hold_out")
def hold_out_as_lists(labels, fraction, generator):
    train, val = [], []
    for label in range(int(labels.max()) + 1):
        members = [i for i, other in enumerate(labels) if other == label]
        if members:
            keys = torch.rand(len(members), generator=generator)
            members = [members[i] for i in keys.argsort()]
            count = max(int(fraction * len(members) + 0.5), 1)
            val, train = val + members[:count], train + members[count:]
    return sorted(train), sorted(val)


@right_answer("data.hold_out")
def hold_out_by_numpy(labels, fraction, generator):
    rng = np.random.default_rng(generator.initial_seed())
    val = np.concatenate([
        rng.choice(np.flatnonzero(labels.numpy() == c), max(1, round(fraction * int((labels == c).sum()))), replace=False)
        for c in np.unique(labels.numpy())
    ])  # fmt: skip
    train = np.setdiff1d(np.arange(len(labels)), val)
    return [torch.from_numpy(train), torch.from_numpy(val)]


@right_answer("data.hold_out")
def hold_out_by_random_keys(labels, fraction, generator):
    keys = torch.rand(len(labels), generator=generator)
    counts = [max(1, round(fraction * int((labels == c).sum()))) for c in labels.unique()]
    masked = [torch.where(labels == c, keys, -1.0) for c in labels.unique()]
    val = torch.cat([row.topk(k).indices for row, k in zip(masked, counts, strict=True)])
    kept = torch.ones(len(labels), dtype=torch.bool).scatter(0, val, False)
    return kept.nonzero().squeeze(1), val


@right_answer("images.to_rgb_tensor")
def rgb_by_pasting(image):
    image = ImageOps.exif_transpose(image).convert("RGBA")
    page = Image.new("RGB", image.size, (255, 255, 255))
    page.paste(image, mask=image.getchannel("A"))
    return torch.from_numpy(np.asarray(page, dtype=np.float32).transpose(2, 0, 1) / 255)


@right_answer("images.to_rgb_tensor")
def rgb_by_torchvision(image):
    from torchvision.transforms.v2 import functional as tv

    upright = ImageOps.exif_transpose(image)
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "#ffffff"), upright)
    return tv.to_dtype(tv.pil_to_tensor(upright.convert("RGB")), torch.float32, scale=True)


@right_answer("images.to_rgb_tensor")
def rgb_by_arithmetic(image):
    pixels = np.array(ImageOps.exif_transpose(image.convert("RGBA"))) / 255.0  # (H, W, 4)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    return torch.tensor(np.moveaxis(colour * alpha + 1 - alpha, 2, 0), dtype=torch.float32)

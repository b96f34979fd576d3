"""What `augmentation.random_crop_batch` needs: the reference and its check, which finds the place of every crop."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from dlcourse.exercises.checking import Answer, Mistake, describe


def random_crop_batch(images: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    size, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)  # (B, C, H + 2p, W + 2p)
    top, left = torch.randint(2 * padding + 1, (2, size, 1, 1, 1), generator=generator)
    rows = top + torch.arange(height)[:, None]  # (B, 1, H, 1)
    columns = left + torch.arange(width)  # (B, 1, 1, W)
    samples = torch.arange(size)[:, None, None, None]
    channels = torch.arange(images.shape[1])[:, None, None]
    return padded[samples, channels, rows, columns]  # (B, C, H, W)


def check_random_crop_batch(answer: Answer) -> str:
    one = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    for images, padding in ((one, 1), (_numbered(3, 2, 4, 6), 1), (_numbered(4, 3, 6, 5).double(), 2), (_numbered(2, 1, 3, 4), 0)):
        for seed in range(4):
            _offsets(answer(images, padding, torch.Generator().manual_seed(seed)), images, padding)
    _check_draws(answer)
    return "every crop is one of the padded image, each image has its own, all offsets equally often, and the generator decides"


def _numbered(size: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Images in which no two pixels are the same."""
    return torch.arange(1.0, size * channels * height * width + 1).reshape(size, channels, height, width)


def _offsets(got: Any, images: torch.Tensor, padding: int) -> torch.Tensor:
    """The (top, left) that each crop was cut at, (B, 2); raises Mistake for what is no crop."""
    given = f"{describe(images)} and padding={padding}"
    if not isinstance(got, torch.Tensor):
        raise Mistake(f"It returns {describe(got)}, where a tensor is asked for.")
    if got.shape != images.shape:
        raise Mistake(f"The result has shape {tuple(got.shape)} where {tuple(images.shape)} is expected. Given {given}.")
    if got.dtype != images.dtype:
        raise Mistake(f"The result has dtype {got.dtype} where {images.dtype} is expected. Given {given}.")
    if (found := _places(got, F.pad(images, [padding] * 4), padding)) is not None:
        return found
    raise Mistake(f"{_fault(got, images, padding)} Given {given}.")


def _places(got: torch.Tensor, padded: torch.Tensor, padding: int) -> torch.Tensor | None:
    height, width = got.shape[2:]
    places = torch.full((len(got), 2), -1)
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, :, top : top + height, left : left + width]
            places[(got == crop).flatten(1).all(1)] = torch.tensor([top, left])
    return None if (places < 0).any() else places


def _fault(got: torch.Tensor, images: torch.Tensor, padding: int) -> str:
    edges = [padding] * 4
    if padding:
        for mode, name in (("replicate", "copies of the edge"), ("reflect", "a mirror image"), ("circular", "the other side")):
            if min(images.shape[2:]) > padding and _places(got, F.pad(images, edges, mode=mode), padding) is not None:
                return f"It fills the border with {name}: pad with zeros."
    flipped = [_places(part[None], F.pad(image.flip(-1)[None], edges), padding) for part, image in zip(got, images, strict=True)]
    if any(place is not None for place in flipped):
        return "It flips an image: only a crop is asked for."
    padded = F.pad(images, edges)
    everything = torch.cat([padded.roll(shift, 0) for shift in range(len(images))])
    if _places(got.repeat(len(images), 1, 1, 1), everything, padding) is None:
        single = [_places(got[:, c : c + 1], padded[:, c : c + 1], padding) for c in range(images.shape[1])]
        if all(place is not None for place in single):
            return "It cuts the channels of one image at different places: a pixel's colours must stay together."
    for top in range(-2, 2 * padding + 3):
        for left in range(-2, 2 * padding + 3):
            wide = F.pad(images, [padding + 2] * 4)[:, :, top + 2 :, left + 2 :][:, :, : images.shape[2], : images.shape[3]]
            if wide.shape == got.shape and (got == wide).flatten(1).all(1).any():
                return "It cuts outside the padded image: offsets run from 0 to 2 · padding."
    return "What it returns is no crop of the zero-padded images, each in its own place."


def _check_draws(answer: Answer) -> None:
    images, state = _numbered(600, 1, 4, 5), torch.get_rng_state()

    def draw(generator: torch.Generator) -> torch.Tensor:
        return _offsets(answer(images, 2, generator), images, 2)

    first, generator = draw(torch.Generator().manual_seed(1)), torch.Generator().manual_seed(1)
    if (first == first[0]).all():
        if (first == 2).all():
            raise Mistake("It leaves the images where they are: draw the offsets at random.")
        raise Mistake("It cuts the whole batch at one place: each image has an offset of its own.")
    if (first[:, 0] == first[:, 1]).all():
        raise Mistake("It shifts rows and columns by the same number: draw two for each image.")
    for axis, name in enumerate(("rows", "columns")):
        if (first[:, axis] == first[0, axis]).all():
            raise Mistake(f"It never varies the {name}: draw an offset for both directions.")
    counts = torch.stack([(first == place).sum(0) for place in range(5)])  # (5 places, 2 axes), 120 expected in each
    if (counts[4] == 0).any():
        raise Mistake("It never draws the largest offset, 2 · padding: torch.randint leaves its upper bound out.")
    if (counts[0] == 0).any():
        raise Mistake("It never draws the offset 0: the offsets are 0 … 2 · padding.")
    if (counts - 120).abs().max() > 50:  # five standard errors
        raise Mistake(f"Its offsets are not equally frequent: 0 … 4 were drawn {counts[:, 0].tolist()} times among 600 images.")
    again = draw(generator)
    if not torch.equal(again, first) or not torch.equal(torch.get_rng_state(), state):
        raise Mistake("It draws from another generator than the one it is given: the same seed must give the same crops.")
    if torch.equal(draw(generator), again) or torch.equal(draw(torch.Generator().manual_seed(2)), first):
        raise Mistake("It draws the same crops whatever the generator: pass generator=generator, and do not seed it.")
    pairs = torch.bincount(first[:, 0] * 5 + first[:, 1], minlength=25)
    if (pairs == 0).any():
        raise Mistake("Its rows and columns depend on each other: draw both offsets independently.")

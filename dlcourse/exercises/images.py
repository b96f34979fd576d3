"""Exercises on images: any picture as an RGB tensor."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from dlcourse.exercises.checking import Answer, Mistake, compare
from dlcourse.exercises.registry import register


def to_rgb_tensor(image: Image.Image) -> torch.Tensor:
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    pixels = np.array(Image.alpha_composite(white, upright).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255  # (H, W, 3) -> (3, H, W)


def check_to_rgb_tensor(answer: Answer) -> str:
    for what, image in _pictures().items():
        before = image.tobytes()
        got, want = answer(image), to_rgb_tensor(image)
        if image.tobytes() != before:
            raise Mistake(f"It changes {what} that it is given: work on a copy.")
        if isinstance(got, torch.Tensor):
            if got.ndim == 2 or (got.ndim == 3 and got.shape[0] in (1, 2, 4) and got.shape[1:] == want.shape[1:]):
                channels = 1 if got.ndim == 2 else got.shape[0]
                raise Mistake(f"It keeps {channels} channel(s) of {what}: convert it to RGB, every image has three.")
            if got.dtype == torch.uint8:
                raise Mistake("It returns whole numbers from 0 to 255: a network takes float32 in [0, 1].")
            if got.dtype != torch.float32 and got.dtype.is_floating_point:
                raise Mistake(f"It returns {got.dtype} for {what}: a network takes float32.")
        height, width = want.shape[1:]
        rounding = 0.006 if "transparent" in what else 1e-4  # blending may round a byte up or down
        compare(got, want, given=what, atol=rounding, rtol=0, mistakes={
            "leaves the channels last: permute (H, W, 3) to (3, H, W)": want.permute(1, 2, 0),
            "reshapes where it must permute: the numbers of a pixel are torn apart":
                want.permute(1, 2, 0).reshape(3, height, width),
            "swaps height and width: permute(2, 0, 1)": want.transpose(1, 2),
            "ignores the EXIF orientation: the picture does not stand upright": _on(image, "white"),
            "divides by 256: white is 255, and becomes 1": want * 255 / 256,
            "drops the transparency: what shows through is white, not the colour stored under it": _on(image, None),
            "lays transparent images on black: white is asked for": _on(image, "black"),
            "leaves the numbers at 0 to 255: divide by 255": want * 255,
            "stretches the contrast to the darkest and brightest pixel: divide by 255":
                (want - want.min()) / (want.max() - want.min()),
            "gives blue, green, red: the order is red, green, blue": want.flip(0),
            "maps to [−1, 1]: [0, 1] is asked for": 2 * want - 1,
            "turns the picture to grey": want.mean(0, keepdim=True).expand(3, -1, -1),
        })  # fmt: skip
    return "colour, greyscale, palette, transparency and two EXIF rotations, each as (3, H, W) in [0, 1]"


def _pictures() -> dict[str, Image.Image]:
    """One picture of each kind, as if read from a file."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    alpha = np.array([[255, 0, 128, 255, 0]] * 3, np.uint8)
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    turned, upside_down = Image.Exif(), Image.Exif()
    turned[0x0112], upside_down[0x0112] = 6, 3
    return {
        "a colour picture of 3 rows and 5 columns": _stored(Image.fromarray(colours)),
        "a greyscale picture (mode L)": _stored(Image.fromarray(colours[..., 0])),
        "a palette picture (mode P)": _stored(palette),
        "a transparent picture (mode RGBA)": _stored(Image.fromarray(np.dstack([colours, alpha]))),
        "a palette picture with a transparent entry": _stored(palette, transparency=1),
        "a transparent grey picture (mode LA)": _stored(Image.fromarray(np.dstack([colours[..., 0], alpha]), "LA")),
        "a picture with the EXIF orientation 6": _stored(Image.fromarray(colours), exif=turned),
        "a picture with the EXIF orientation 3": _stored(Image.fromarray(colours), exif=upside_down),
    }


def _stored(image: Image.Image, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "png", **options)
    stored = Image.open(file)
    stored.load()
    return stored


def _on(image: Image.Image, colour: str | None) -> torch.Tensor:
    """The picture without its transparency, or on a colour: (3, H, W)."""
    layered = image.convert("RGBA")
    if colour is not None:
        layered = Image.alpha_composite(Image.new("RGBA", image.size, colour), layered)
    return torch.from_numpy(np.array(layered.convert("RGB"))).permute(2, 0, 1) / 255


register(
    "images.to_rgb_tensor", to_rgb_tensor, check_to_rgb_tensor, difficulty=3, importance=4, minutes=15,
    hints=(
        "Pillow knows all the kinds: turn the picture upright, convert it, and only then make a tensor of it.",
        "ImageOps.exif_transpose(image).convert('RGBA') is upright and has an alpha channel, whatever came in.",
        "Image.alpha_composite(Image.new('RGBA', size, 'white'), upright).convert('RGB'), then np.array, torch.from_numpy, "
        "permute(2, 0, 1), divide by 255.",
    ),
)  # fmt: skip

"""Exercise on serving (chapter 18): pixels from bytes that a stranger sent."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageFile

from dlcourse.exercises.checking import Answer, Mistake, NotAttempted, compare, describe, first_line
from dlcourse.exercises.registry import register

LIMIT = 12


def decode_safely(data: bytes, max_pixels: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"the picture has more than {max_pixels} pixels")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("this is not a picture that can be read") from None


def check_decode_safely(answer: Answer) -> str:
    for what, image in _pictures().items():
        content = _encoded(image)
        got = _accepted(answer, content, what)
        if isinstance(got, np.ndarray) and got.ndim == 2:
            raise Mistake(f"It gives one number a pixel for {what}: convert it to RGB, every picture has three channels.")
        if isinstance(got, np.ndarray) and got.ndim == 3 and got.shape[2] == 4 != got.shape[1]:
            raise Mistake(f"It keeps 4 channels of {what}: convert it to RGB.")
        want = np.array(image.convert("RGB"))
        compare(got, want, given=what, rtol=0, atol=0, mistakes={
            "puts the channels first: (H, W, 3) is asked for": want.transpose(2, 0, 1),
            "gives blue, green, red: the order is red, green, blue": want[..., ::-1].copy(),
            "scales to [0, 1]: uint8 from 0 to 255 is asked for": want / 255,
        })  # fmt: skip
    _check_refusals(answer)
    return "colour, grey, palette and transparent pictures; text, cut and empty files refused; pixels counted before any is decoded"


def _accepted(answer: Answer, content: bytes, what: str) -> Any:
    with _settings_kept():
        try:
            got = answer(content, LIMIT)
        except Mistake as mistake:
            raise Mistake(f"{mistake} That was {what}, which is to be accepted.") from None
    return got.copy() if isinstance(got, np.ndarray) else got


def _check_refusals(answer: Answer) -> None:
    whole = _encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)))
    for what, content in (
        ("a text", b"not a picture"), ("no bytes at all", b""), ("a PNG cut in the middle", whole[: len(whole) // 2]),
        ("a PNG with a damaged header", whole[:14] + b"\xff\xff" + whole[16:]),
    ):  # fmt: skip
        _refused(answer, content, what)
    for size in ((4, 4), (13, 1), (1, 13)):
        what = f"a picture of {size[0]}×{size[1]} pixels with max_pixels={LIMIT}"
        with _counting_decodes() as decodes:
            _refused(answer, _encoded(Image.new("RGB", size)), what)
        if decodes:
            raise Mistake(f"It decodes {what} before it refuses it: image.size is known from the header, look there first.")
    _refused(answer, _claiming(30_000, 30_000), "a small PNG that claims 30000×30000 pixels")


def _refused(answer: Answer, content: bytes, what: str) -> None:
    """Raise Mistake unless the answer refuses the content with a ValueError in words."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), _settings_kept():
            result = answer.value(content, LIMIT)
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError as error:
        if any(word in str(error) for word in ("0x", "BytesIO", "PIL")) or not str(error):
            raise Mistake(f"Its ValueError for {what} says {first_line(error)!r}: write a sentence for the sender, "
                          "not the decoder's text about objects of this process.") from None  # fmt: skip
    except (Exception, SystemExit) as error:
        raise Mistake(f"It raises {type(error).__name__} for {what}: raise a ValueError, which the service turns into a 4xx.") from None
    else:
        shown = f"a picture of shape {result.shape}" if isinstance(result, np.ndarray) else describe(result)
        raise Mistake(f"It accepts {what} and returns {shown}: raise a ValueError.")


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    """Raise Mistake when a setting of Pillow's was left changed; put it back."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        yield
    finally:
        after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before
        if after != before:
            raise Mistake("It changes a setting of Pillow for the whole program: other requests run beside this one.")


@contextlib.contextmanager
def _counting_decodes() -> Iterator[list[Any]]:
    decodes: list[Any] = []
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> Any:
        decodes.append(image)
        return load(image)

    with mock.patch.object(ImageFile.ImageFile, "load", counted):
        yield decodes


def _pictures() -> dict[str, Image.Image]:
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (2, 6, 4), dtype=np.uint8)
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return {
        f"a colour picture of exactly max_pixels={LIMIT}": Image.fromarray(colours[..., :3]),
        "a picture of one pixel": Image.fromarray(colours[:1, :1, :3]),
        "a grey picture (mode L)": Image.fromarray(colours[..., 0]),
        "a palette picture (mode P)": palette,
        "a transparent picture (mode RGBA)": Image.fromarray(colours),
    }


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with next to no pixels behind it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


register(
    "serving.decode_safely", decode_safely, check_decode_safely, difficulty=3, importance=5, minutes=15,
    hints=(
        "Image.open reads the header and no pixel: image.size is known before anything large is made.",
        "Open io.BytesIO(data), compare width × height with max_pixels, and only then image.convert('RGB') and np.array.",
        "Damaged files make Pillow raise OSError (UnidentifiedImageError is one), SyntaxError or DecompressionBombError: catch these and "
        "raise a ValueError with a sentence of your own.",
    ),
)  # fmt: skip

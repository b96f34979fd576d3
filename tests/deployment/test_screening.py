"""What a file claims is read as Pillow reads it, and what is made to hurt does not reach a decoder."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sklearn.datasets import load_sample_images

from dlcourse.data import read_image
from dlcourse.deployment.screening import MOST_PARTS, MOST_SCANS, screen

PHOTO = Image.fromarray(load_sample_images().images[0]).resize((61, 37))
OPTIONS = [
    ("PNG", {}), ("PNG", {"optimize": True}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 5}),
    ("WEBP", {"lossless": True}), ("WEBP", {"quality": 50}), ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
]  # fmt: skip
MODES = {"PNG": ("RGB", "L", "RGBA", "P", "1"), "JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA")}


def encoded(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("kind", "options", "mode"),
    [(kind, options, mode) for kind, options in OPTIONS for mode in MODES[kind]],
    ids=str,
)
def test_an_honest_picture_passes_with_the_size_that_pillow_reads(kind, options, mode):
    for size in ((61, 37), (1, 1), (1, 300), (257, 3)):
        content = encoded(PHOTO.convert(mode).resize(size), kind, **options)
        found = screen(content)
        assert found.pixels == size[0] * size[1]
        np.testing.assert_array_equal(read_image(found.content), read_image(content))


def test_orientation_and_transparency_stay_and_texts_go():
    exif = Image.Exif()
    exif[0x0112] = 6
    texts = PngImagePlugin.PngInfo()
    for number in range(50):
        texts.add_text(f"a{number}", "b" * 10_000, zip=True)
    picture = PHOTO.convert("RGBA")
    picture.putalpha(128)
    content = encoded(picture, "PNG", exif=exif, pnginfo=texts)
    kept = screen(content).content
    assert len(kept) < len(content)
    assert b"zTXt" not in kept
    np.testing.assert_array_equal(read_image(kept), read_image(content))
    assert read_image(kept).shape == (3, 61, 37)  # turned upright


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_kinds_do_not_pass(kind):
    assert screen(encoded(PHOTO.convert("RGB"), kind)) is None


def test_a_size_beyond_all_memory_is_read_from_the_header():
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    assert (
        screen(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")).pixels
        == 200_000_000
    )


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x00", b"\xff\xd8\xff\xe0\x00\x01", b"RIFF....WEBP", b"RIFF....WEBPVP8X", b"RIFF....WEBPVP8 ",
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * (MOST_PARTS + 1) + b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01",
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"") * (MOST_PARTS + 1),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 1, 8, 0, 0, 0, 0)),
        encoded(PHOTO, "JPEG", progressive=True) + b"\xff\xda" * (MOST_SCANS + 1),
        b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x01\x00\x00",
    ],
    ids=lambda content: repr(content[:30]),
)  # fmt: skip
def test_what_is_broken_or_made_to_hurt_does_not_pass(content):
    assert screen(content) is None


def test_what_kept_a_processor_busy_for_seconds_does_not_pass():
    """Files as the attack sends them, whatever the limits are called."""
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    assert screen(b"\x89PNG\r\n\x1a\n" + small + chunk(b"IDAT", b"") * 20_000 + chunk(b"IEND", b"")) is None
    assert screen(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 20_000 + encoded(PHOTO, "JPEG")[2:]) is None
    assert screen(encoded(PHOTO, "JPEG", progressive=True) + b"\xff\xda" * 2_000) is None


def test_spoiled_files_never_raise():
    draw = random.Random(0)
    for kind, options in OPTIONS:
        whole = encoded(PHOTO.convert("RGB"), kind, **options)
        for _ in range(300):
            spoiled = bytearray(whole[: draw.randrange(len(whole) + 1)])
            for _ in range(draw.randrange(1, 20)):
                if spoiled:
                    spoiled[draw.randrange(min(len(spoiled), 200))] = draw.randrange(256)
            screen(bytes(spoiled))

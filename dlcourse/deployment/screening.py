"""A look at a file from a stranger before a decoder sees it: its kind, its size in pixels, and whether it is made to hurt.

A decoder trusts the file: it decompresses each text, follows each marker, draws each pass. A picture has few of them; a file
of a few megabytes can hold millions, and keep a processor busy for minutes. Only the structure is read here, never a pixel.

PNG (W3C, Portable Network Graphics, 3rd edition), JPEG (ITU-T T.81, annex B), WebP (RFC 9649).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FORMATS = ("JPEG", "PNG", "WEBP")
"""Kinds of file that are decoded, by Pillow's names: the fewer decoders strangers reach, the better."""
MOST_PARTS = 4096
"""Chunks of a PNG, segments of a JPEG."""
MOST_SCANS = 100
"""Passes over a progressive JPEG; encoders write about ten."""
PNG_PARTS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"})
"""What pixels, transparency and orientation depend on. The rest (texts, profiles, further frames) is left out."""


@dataclass(frozen=True)
class Screened:
    """A file that may be decoded: what is left of its content, and how many pixels it claims to hold."""

    content: bytes
    pixels: int


def screen(content: bytes) -> Screened | None:
    """The file without what a picture does not need; None for what is no PNG, JPEG or WebP, is broken or is made to hurt."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(content)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp(content)
    except (struct.error, IndexError):  # it ends where more should come
        pass
    return None


def _png(content: bytes) -> Screened | None:
    width, height = struct.unpack_from(">II", content, 16)
    if content[12:16] != b"IHDR" or not width or not height:
        return None
    kept, start = [content[:8]], 8
    for _ in range(MOST_PARTS):
        (length,), kind = struct.unpack_from(">I", content, start), content[start + 4 : start + 8]
        end = start + 12 + length
        if kind in PNG_PARTS:
            kept.append(content[start:end])
        if kind == b"IEND" or end >= len(content):  # a file that was cut short is left to the decoder to refuse
            return Screened(b"".join(kept), width * height)
        start = end
    return None


def _jpeg(content: bytes) -> Screened | None:
    # In compressed data FF is followed by 00, so that FF DA is the start of a scan (or part of a small preview).
    if content.count(b"\xff\xda") > MOST_SCANS:
        return None
    start = 2
    for _ in range(MOST_PARTS):
        marker, (length,) = content[start + 1], struct.unpack_from(">H", content, start + 2)
        if content[start] != 0xFF or length < 2:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame: its size stands here
            height, width = struct.unpack_from(">HH", content, start + 5)
            return Screened(content, width * height) if width and height else None
        start += 2 + length
        while content[start + 1] == 0xFF:  # fill bytes
            start += 1
    return None


def _webp(content: bytes) -> Screened | None:
    kind = content[12:16]
    if kind == b"VP8X":
        (sides,) = struct.unpack_from("<Q", content, 22)  # two bytes of the flags' padding, then two numbers of three
        width, height = 1 + (sides >> 16 & 0xFFFFFF), 1 + (sides >> 40)
    elif kind == b"VP8L" and content[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        return None
    return Screened(content, width * height) if width and height else None

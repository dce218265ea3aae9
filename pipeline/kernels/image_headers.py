"""What the first bytes of a picture state, read without any decoder, and the limits on it.

Three formats are known by content (JPEG, PNG, WebP); a file name is never asked. The header is read
here, in a few hundred bytes of Python, so that a decompression bomb is refused before a decoder
allocates its canvas (libwebp does so when it opens a file).

Source: SPEC-dataset Y1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

JPEG, PNG, WEBP = "jpeg", "png", "webp"
FORMATS = (JPEG, PNG, WEBP)
_PILLOW_HARD_LIMIT = 2 * 89_478_485
"""Pixels above which Pillow itself refuses to open a file."""


class ImageReason(StrEnum):
    """Why a picture was set aside."""

    MISSING_BYTES = "missing_bytes"
    EMPTY_BYTES = "empty_bytes"
    TOO_MANY_BYTES = "too_many_bytes"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_MODE = "unsupported_mode"
    TOO_MANY_PIXELS = "too_many_pixels"
    ANIMATED = "animated"
    TRUNCATED = "truncated"
    DECODE_ERROR = "decode_error"
    DECODER_WARNING = "decoder_warning"


@dataclass(frozen=True)
class ImageLimits:
    """What a decoder is allowed to touch.

    Attributes:
        max_bytes: largest accepted file.
        max_pixels: largest accepted width x height, as the header states them.
        formats: accepted formats, out of "jpeg", "png", "webp".
        reject_warnings: refuse files whose damage the decoder only warns about. False keeps them,
            except truncated ones, which are always refused.
    """

    max_bytes: int
    max_pixels: int
    formats: tuple[str, ...] = FORMATS
    reject_warnings: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for caps that cannot be kept."""
        if not 0 < self.max_pixels <= _PILLOW_HARD_LIMIT:
            raise ValueError(
                f"ImageLimits.max_pixels: {self.max_pixels}, expected 1 to {_PILLOW_HARD_LIMIT}"
            )
        if self.max_bytes <= 0:
            raise ValueError(f"ImageLimits.max_bytes: {self.max_bytes}, expected > 0")
        if unknown := set(self.formats) - set(FORMATS):
            raise ValueError(
                f"ImageLimits.formats: {sorted(unknown)}, expected some of {list(FORMATS)}"
            )


class Rejection(NamedTuple):
    """A picture that was set aside: the reason, and what the decoder said (for logs only)."""

    reason: ImageReason
    detail: str = ""


class Header(NamedTuple):
    """What the first bytes of a file state, before orientation."""

    format: str
    width: int
    height: int
    is_animated: bool = False
    exif: bytes = b""
    xmp: bytes = b""


def check_header(data: bytes | None, limits: ImageLimits) -> Header | Rejection:
    """All checks that need no decoder: presence, byte cap, format, animation, pixel cap."""
    if data is None:
        return Rejection(ImageReason.MISSING_BYTES)
    if not data:
        return Rejection(ImageReason.EMPTY_BYTES)
    if len(data) > limits.max_bytes:
        return Rejection(ImageReason.TOO_MANY_BYTES, f"{len(data)} > {limits.max_bytes}")
    try:
        header = read_header(data)
    except (struct.error, IndexError):
        return Rejection(ImageReason.TRUNCATED, "header")
    if header is None or header.format not in limits.formats:
        return Rejection(ImageReason.UNSUPPORTED_FORMAT, data[:4].hex())
    if header.width <= 0 or header.height <= 0:
        return Rejection(ImageReason.DECODE_ERROR, f"{header.width} x {header.height}")
    if header.width * header.height > limits.max_pixels:
        return Rejection(ImageReason.TOO_MANY_PIXELS, f"{header.width} x {header.height}")
    if header.is_animated:
        return Rejection(ImageReason.ANIMATED)
    return header


def read_header(data: bytes) -> Header | None:
    """Format, size and metadata from the first bytes; None if it is none of the three formats.

    Raises:
        struct.error, IndexError: the file ends inside its header.
    """
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg_header(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_header(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    return None


def _jpeg_header(data: bytes) -> Header:
    width = height = 0
    exif = xmp = b""
    at = 2
    while True:
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            return Header(JPEG, width, height, exif=exif, xmp=xmp)
        marker = data[at + 1]
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        if marker in (0xDA, 0xD9):
            return Header(JPEG, width, height, exif=exif, xmp=xmp)
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not width:
            height, width = struct.unpack_from(">HH", data, at + 5)
        elif marker == 0xE1:
            payload = data[at + 4 : at + 2 + length]
            if payload.startswith(b"Exif\0\0"):
                exif = exif + payload[6:] if exif else payload
            elif payload.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                xmp = payload
        at += 2 + max(length, 2)


def _png_header(data: bytes) -> Header:
    name, width, height = struct.unpack_from(">4sII", data, 12)
    if name != b"IHDR":
        return Header(PNG, 0, 0)
    at, num_frames = 8, 1
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"acTL":
            (num_frames,) = struct.unpack_from(">I", data, at + 8)
        if name in (b"IDAT", b"IEND"):
            return Header(PNG, width, height, is_animated=num_frames > 1)
        at += 12 + length


def _webp_header(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise IndexError("RIFF size beyond the end of the file")
    chunk = data[12:16]
    if chunk == b"VP8X":
        flags = data[20]
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return Header(WEBP, width, height, is_animated=bool(flags & 0x02))
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header(WEBP, 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(WEBP, width & 0x3FFF, height & 0x3FFF)
    return Header(WEBP, 0, 0)

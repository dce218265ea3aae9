"""Pictures of the planted world: smooth, random, all different, with known edits.

A picture is a sum of the 8 x 8 lowest cosine waves. Of the 63 amplitudes beside the mean, 28 are
positive, 30 negative, all clear of zero, and 5 are near zero. So two contents differ in about half
of any hash of low-frequency signs; an edit that only adds noise can flip the five weak
ones alone, which keeps any two members within 4 bits; mirroring flips half of all.
Families are planted by number: no hash is computed here.

Source: SPEC Z1.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.kernels.hashing import stream_seed

_WAVES: Final = 8
_NUM_NEGATIVE: Final = 30
_NUM_WEAK: Final = 5
_WEAK: Final = 0.03
"""Amplitude of the weak waves against 1: about a third of a grey level, the noise of an edit."""
_CONTRAST: Final = 38.0
"""Standard deviation of the grey levels."""
_FORMATS: Final = ("jpeg",) * 8 + ("png", "webp")
LOOK_ALIKE_FLIPS: Final = 7
"""Signs flipped each way in a look-alike: 14 bits from the picture it resembles."""


def make_picture(
    content: int, seed: int, *, resembles: int = -1, is_flat: bool = False
) -> NDArray[np.uint8]:
    """Pixels of a content.

    Args:
        content: number of the content.
        seed: seed of the world.
        resembles: another content whose picture this one nearly is, -1 for none.
        is_flat: one colour all over.

    Returns:
        uint8 of shape (height, width, 3), sides 64 to 96.
    """
    rng = np.random.default_rng((stream_seed(seed, "picture"), content))
    height, width = rng.integers(64, 97, 2)
    if is_flat:
        return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    amplitude = _amplitudes(rng)
    if resembles >= 0:
        other = np.random.default_rng((stream_seed(seed, "picture"), resembles))
        other.integers(64, 97, 2)
        amplitude = _flip_some(_amplitudes(other), rng)
    grey = _waves(int(height)).T @ amplitude @ _waves(int(width))
    grey *= _CONTRAST / grey.std()
    red, blue = rng.uniform(-25, 25, 2)
    green = -(0.299 * red + 0.114 * blue) / 0.587
    pixels = 128.0 + grey[:, :, None] + np.array([red, green, blue])
    return _to_uint8(pixels)


def _to_uint8(pixels: NDArray[np.float64]) -> NDArray[np.uint8]:
    rounded: NDArray[np.float64] = np.clip(np.rint(pixels), 0.0, 255.0)
    return rounded.astype(np.uint8)


def _amplitudes(rng: np.random.Generator) -> NDArray[np.float64]:
    amplitude = rng.uniform(0.6, 1.4, _WAVES * _WAVES)
    places = 1 + rng.permutation(_WAVES * _WAVES - 1)
    amplitude[places[:_NUM_NEGATIVE]] *= -1.0
    weak = places[_NUM_NEGATIVE : _NUM_NEGATIVE + _NUM_WEAK]
    amplitude[weak] = rng.uniform(-_WEAK, _WEAK, _NUM_WEAK)
    amplitude[0] = 0.0  # the mean is set apart
    return amplitude.reshape(_WAVES, _WAVES)


def _flip_some(amplitude: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    flipped = amplitude.ravel().copy()
    for sign in (1.0, -1.0):
        places = np.flatnonzero(sign * amplitude.ravel() > _WEAK)
        flipped[rng.choice(places, LOOK_ALIKE_FLIPS, replace=False)] *= -1.0
    return flipped.reshape(amplitude.shape)


def _waves(size: int) -> NDArray[np.float64]:
    """float64 (8, size): cosine waves sampled at pixel centres."""
    if size not in _WAVE_CACHE:
        k = np.arange(_WAVES)[:, None]
        _WAVE_CACHE[size] = np.cos(np.pi * k * (np.arange(size) + 0.5) / size)
    return _WAVE_CACHE[size]


_WAVE_CACHE: Final[dict[int, NDArray[np.float64]]] = {}


def encode(pixels: NDArray[np.uint8], kind: str, quality: int = 88) -> bytes:
    """Encode pixels as jpeg, png or webp."""
    if kind == "jpeg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality))
    out = io.BytesIO()
    if kind == "png":
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    else:
        Image.fromarray(pixels).save(out, "WEBP", quality=quality, method=0)
    return out.getvalue()


def original_bytes(content: int, seed: int, pixels: NDArray[np.uint8]) -> bytes:
    """The file of an original; flat colours are lossless, else two might become one."""
    if (pixels == pixels[0, 0]).all():
        return encode(pixels, "png")
    rng = np.random.default_rng((stream_seed(seed, "encoding"), content))
    return encode(pixels, _FORMATS[int(rng.integers(len(_FORMATS)))])


def edit_picture(
    pixels: NDArray[np.uint8], edit: str, content: int, number: int, seed: int
) -> bytes:
    """The file of an edited copy.

    Args:
        pixels: of the original.
        edit: one of ``planted_content.EDITS``.
        content: number of the content; with "original" and "exact" the original's very bytes.
        number: number of the copy, which decides how strong the edit is.
        seed: seed of the world.

    Raises:
        ValueError: an unknown edit.
    """
    rng = np.random.default_rng((stream_seed(seed, "edit"), number))
    strength = float(rng.random())
    match edit:
        case "original" | "exact":
            return original_bytes(content, seed, pixels)
        case "jpeg":
            return encode(pixels, "jpeg", quality=int(55 + 25 * strength))
        case "resize":
            scale = (0.8 + 0.15 * strength) if number % 2 else (1.1 + 0.3 * strength)
            height, width = (round(s * scale) for s in pixels.shape[:2])
            small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
            return encode(np.asarray(small), "jpeg", quality=90)
        case "brightness":
            gain = (0.9 + 0.05 * strength) if number % 2 else (1.03 + 0.05 * strength)
            return encode(_to_uint8(pixels.astype(np.float64) * gain + 3.0), "jpeg", quality=90)
        case "format":
            return encode(pixels, "png" if number % 2 else "webp", quality=92)
        case "turned_exif":
            return _turned(pixels)
        case "mirror":
            return encode(pixels[:, ::-1], "jpeg", quality=90)
        case "rotate":
            return encode(np.rot90(pixels), "jpeg", quality=90)
        case "heavy_crop":
            height, width = pixels.shape[:2]
            top, left = int(height * 0.4 * strength), int(width * 0.4 * (1 - strength))
            return encode(
                pixels[top : top + int(height * 0.6), left : left + int(width * 0.6)], "jpeg", 90
            )
    raise ValueError(f"planted edit {edit!r}: expected one of the planted edits.")


def _turned(pixels: NDArray[np.uint8]) -> bytes:
    """Stored a quarter turn off, with the EXIF note that turns it back."""
    image = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, exif=exif.tobytes())
    return out.getvalue()


def broken_pictures(seed: int, number: int) -> dict[str, bytes | None]:
    """Files that fingerprinting must refuse, by the reason that ``ImageReason`` has for them."""
    content = 2**41 + number
    jpeg = encode(make_picture(content, seed), "jpeg")
    png = encode(make_picture(content, seed), "png")
    return {
        "truncated": jpeg[: len(jpeg) * 2 // 3],
        "truncated_png": png[: len(png) // 2],
        "too_many_pixels": _bomb(),
        "unsupported_format": b"GIF89a" + struct.pack("<HH", 8, 8) + bytes([number % 256]) * 32,
        "unsupported_text": f"<html>not found {number}</html>".encode(),
        "empty_bytes": b"",
    }


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def part(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 64)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body

"""Image bytes to a crop: decode under a pixel cap, keyed random-resized crop."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.kernels.hashing import hash_ints, uniform
from pipeline.train.release import CorruptSampleError

CROP_ATTEMPTS = 10
_JPEG = frozenset({"jpg", "jpeg"})
_FORMATS = ("JPEG", "PNG", "WEBP")


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


def decode(data: bytes, suffix: str, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a picture; transparent parts become white.

    Args:
        data: a JPEG, PNG or WebP file.
        suffix: of the file's name; chooses the decoder tried first.
        max_pixels: cap on the size announced by the header, checked before decoding.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        CorruptSampleError: the file is damaged, too large, or of another format.
    """
    try:
        if suffix in _JPEG:
            pixels = _decode_jpeg(data, max_pixels)
            if pixels is not None:
                return pixels
        return _decode_any(data, max_pixels)
    except CorruptSampleError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise CorruptSampleError(f"not decodable: {type(error).__name__}: {error}") from error


def _decode_jpeg(data: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """The fast decoder; None for what only the tolerant one may take (CMYK, stray bytes)."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(height, width, max_pixels)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return None
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"), np.uint8)
    except ValueError:
        return None


def _decode_any(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_pixels(image.height, image.width, max_pixels)
        if image.mode == "RGB":
            return np.asarray(image)
        if image.has_transparency_data:
            picture = image.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise CorruptSampleError(f"{height} x {width} pixels, expected <= {max_pixels}")


def crop_uniforms(seed: int, epoch: int, key: str, copy: int) -> NDArray[np.float64]:
    """The random numbers of one crop, a function of the sample and not of who reads it.

    Returns:
        float64 (CROP_ATTEMPTS, 4) in [0, 1).
    """
    numbers = np.arange(CROP_ATTEMPTS * 4)
    return uniform(hash_ints(numbers, seed, f"crop/{epoch}/{copy}/{key}")).reshape(-1, 4)


def choose_crop(
    height: int, width: int, uniforms: NDArray[np.float64], min_area: float, max_aspect: float
) -> Box:
    """A box of random area and aspect: the first attempt that fits, else the largest middle one.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        uniforms: float64 (attempts, 4) for area, aspect, top, left.
        min_area: least share of the picture; the largest is 1.
        max_aspect: aspects are log-uniform in [1 / max_aspect, max_aspect].

    Source: Szegedy et al. 2015, section 6; paper A.1; SPEC A12.
    """
    area = (min_area + (1 - min_area) * uniforms[:, 0]) * (height * width)
    aspect = np.exp((2 * uniforms[:, 1] - 1) * math.log(max_aspect))
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if not fits.any():
        return _middle_crop(height, width, max_aspect)
    i = int(np.argmax(fits))
    h, w = int(heights[i]), int(widths[i])
    top = int(uniforms[i, 2] * (height - h + 1))
    left = int(uniforms[i, 3] * (width - w + 1))
    return Box(top, left, h, w)


def _middle_crop(height: int, width: int, max_aspect: float) -> Box:
    w = max(1, min(width, round(height * max_aspect)))
    h = max(1, min(height, round(width * max_aspect)))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def crop_resized(pixels: NDArray[np.uint8], box: Box, size: int) -> Tensor:
    """Cut a box and scale it to size x size, bilinear with antialiasing, in uint8.

    Returns:
        uint8 (3, size, size).
    """
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    nchw = torch.from_numpy(part.copy()).permute(2, 0, 1).unsqueeze(0)
    scaled = interpolate(nchw, size=(size, size), mode="bilinear", antialias=True)
    return scaled.squeeze(0)

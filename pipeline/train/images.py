"""Image bytes to a crop: decode under a pixel cap, keyed random-resized crop.

The crop is chosen from the size in the header, before decoding, so that a JPEG may be decoded at a
fraction of its size where the crop is still larger than what the model sees.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config.train import DataParams
from pipeline.train.crops import Box, Uniforms, choose_crop
from pipeline.train.release import CorruptSampleError

_JPEG = frozenset({"jpg", "jpeg"})
_FORMATS = ("JPEG", "PNG", "WEBP")
_COLOURS = ("YCbCr", "RGB", "Gray")
_LARGEST_FACTOR = 8
_resize: Callable[..., Tensor] = torch._C._nn._upsample_bilinear2d_aa
"""What ``torch.nn.functional.interpolate`` calls; that one cannot write into given memory, and
``torch.ops.aten`` takes a sixth longer."""


class PlannedCrop(NamedTuple):
    """A JPEG's size by its header, and the box to cut from it."""

    size: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class CropRule:
    """How a picture becomes an input of the model.

    Attributes:
        size: side of the input in pixels.
        min_area: least share of the picture that a crop takes; the largest is 1.
        max_aspect: aspects are log-uniform in [1 / max_aspect, max_aspect].
        max_pixels: cap on the size announced by the header, checked before decoding.
        decode_margin: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the crop's sides then are
            at least ``size`` times this; None decodes at full size.
    """

    size: int
    min_area: float
    max_aspect: float
    max_pixels: int
    decode_margin: float | None = None

    @classmethod
    def of(cls, data: DataParams, size: int) -> CropRule:
        """The rule of a run."""
        return cls(
            size, data.crop_min_area, data.crop_max_aspect, data.max_pixels, data.decode_margin
        )


def crop_image(
    data: bytes, suffix: str, rule: CropRule, uniforms: Uniforms, out: Tensor | None = None
) -> Tensor:
    """Decode a picture and cut a random crop; transparent parts become white.

    Args:
        data: a JPEG, PNG or WebP file.
        suffix: of the file's name; chooses the decoder tried first.
        rule: see there.
        uniforms: (attempts, 4), the sample's random numbers.
        out: as ``crop_resized``.

    Returns:
        uint8 (3, size, size), RGB, pixels' colours next to each other in memory.

    Raises:
        CorruptSampleError: the file is damaged, too large, or of another format.
    """
    return cut_crop(data, plan_crop(data, suffix, rule, uniforms), rule, uniforms, out)


def plan_crop(data: bytes, suffix: str, rule: CropRule, uniforms: Uniforms) -> PlannedCrop | None:
    """First half of ``crop_image``; None for what only the tolerant decoder may take.

    Raises:
        CorruptSampleError: the header announces too many pixels.
    """
    size = _jpeg_size(data, suffix, rule.max_pixels)
    if size is None:
        return None
    return PlannedCrop(size, choose_crop(*size, uniforms, rule.min_area, rule.max_aspect))


def cut_crop(
    data: bytes,
    planned: PlannedCrop | None,
    rule: CropRule,
    uniforms: Uniforms,
    out: Tensor | None = None,
) -> Tensor:
    """Second half of ``crop_image``, by what ``plan_crop`` found; arguments and errors as there."""
    if planned is not None:
        size, box = planned
        factor = _decode_factor(box, rule)
        pixels = _decode_jpeg(data, factor, size)
        if pixels is not None:
            return crop_resized(pixels, _divided(box, factor, pixels), rule.size, out)
    pixels = _tolerant(data, rule.max_pixels)
    height, width = pixels.shape[:2]
    box = choose_crop(height, width, uniforms, rule.min_area, rule.max_aspect)
    return crop_resized(pixels, box, rule.size, out)


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
    size = _jpeg_size(data, suffix, max_pixels)
    pixels = None if size is None else _decode_jpeg(data, 1, size)
    return _tolerant(data, max_pixels) if pixels is None else pixels


def _jpeg_size(data: bytes, suffix: str, max_pixels: int) -> tuple[int, int] | None:
    """Height and width by the header; None for what only the tolerant decoder may take."""
    if suffix not in _JPEG:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_pixels(height, width, max_pixels)
    return (height, width) if colours in _COLOURS else None


def _decode_jpeg(data: bytes, factor: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The fast decoder, at 1 / factor of the size; None for stray bytes, which it refuses."""
    height, width = (-(-side // factor) for side in size)
    try:
        pixels = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_height=height, min_width=width, min_factor=factor
        )
    except ValueError:
        return None
    return np.asarray(pixels, np.uint8)


def _tolerant(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return _decode_any(data, max_pixels)
    except CorruptSampleError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise CorruptSampleError(f"not decodable: {type(error).__name__}: {error}") from error


def _decode_any(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_pixels(image.height, image.width, max_pixels)
        if image.mode == "RGB":
            return np.array(image)  # a copy: torch wants to write
        if image.has_transparency_data:
            picture = image.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            return np.array(Image.alpha_composite(white, picture).convert("RGB"))
        return np.array(image.convert("RGB"))


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise CorruptSampleError(f"{height} x {width} pixels, expected <= {max_pixels}")


def _decode_factor(box: Box, rule: CropRule) -> int:
    """The largest of 1, 2, 4, 8 that leaves the box ``decode_margin`` times the input's size."""
    factor = 1
    if rule.decode_margin is not None:
        room = min(box.height, box.width) / (rule.size * rule.decode_margin)
        while factor < _LARGEST_FACTOR and 2 * factor <= room:
            factor *= 2
    return factor


def _divided(box: Box, factor: int, pixels: NDArray[np.uint8]) -> Box:
    """The box in a picture decoded at 1 / factor of its size."""
    if factor == 1:
        return box
    height, width = pixels.shape[:2]
    h, w = max(1, round(box.height / factor)), max(1, round(box.width / factor))
    top, left = round(box.top / factor), round(box.left / factor)
    return Box(min(top, height - h), min(left, width - w), h, w)


def crop_resized(
    pixels: NDArray[np.uint8], box: Box, size: int, out: Tensor | None = None
) -> Tensor:
    """Cut a box and scale it to size x size, bilinear with antialiasing, in uint8.

    Args:
        pixels: (height, width, 3).
        box: in it.
        size: of the result.
        out: where the result is to stand, laid out as it; None for memory of its own.

    Returns:
        uint8 (3, size, size), a view of (size, size, 3): torch's fast path for RGB.
    """
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    nchw = torch.from_numpy(np.ascontiguousarray(part)[None]).permute(0, 3, 1, 2)
    if out is None:
        out = torch.empty((size, size, 3), dtype=torch.uint8).permute(2, 0, 1)
    _resize(nchw, [size, size], False, None, None, out=out[None])
    return out

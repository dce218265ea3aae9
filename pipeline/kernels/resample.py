"""Shrinking grey pictures with Pillow's exact 8-bit arithmetic, as products of small matrices.

Pillow multiplies pixels with weights rounded to 22 fractional bits, sums in integers, and rounds to
uint8 between the two passes. Here a weight is split into its upper and its lower half, so that the
sums of each half are integers below 2^24: float32 holds them exactly, in whatever order a product
of matrices adds them up. So the bytes are Pillow's, in 0.4 of its time. A box has few weights, at
which Pillow itself is as fast: it does the passes, in our order.

Pillow 13 runs the vertical pass first for tall pictures; earlier versions never do. Here the rule
is fixed (that of Pillow 13), so hashes do not change with the installed version.

Source: behaviour of Pillow's resampling (measured byte for byte in the tests); SPEC-dataset N1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

Filter = Literal["lanczos", "box"]
_ONE_BITS = 22
_LOW_BITS = 10
"""Bits of a weight's lower half: with the upper half's 13, sums of both stay below 2^24."""
_LOBES = 3.0
_BAND = 8
"""Output pixels computed by one product: each needs only its own stretch of the input."""
_SHORT = 256
"""Input pixels up to which one product for all output pixels is faster than bands."""
_TIE = 1e-6
"""Weights closer than this to a rounding tie are computed again in C's order of operations."""


class Weights(NamedTuple):
    """From a number of pixels to another.

    Attributes:
        band: output pixels of a band.
        bands: (first, last, weights) of each: float, (last - first, 2 band), upper halves in the
            first ``band`` columns, in units of 2^-12, lower ones in the others, of 2^-22.
            float32 where that is exact, float64 for very long inputs.
    """

    band: int
    bands: tuple[tuple[int, int, NDArray[Any]], ...]


def resize_grey(
    grey: NDArray[np.uint8], size: int, method: Filter = "lanczos"
) -> NDArray[np.uint8]:
    """Resize to (size, size), equal to Pillow 13's ``resize`` of mode "L".

    Args:
        grey: uint8 of shape (height, width).
        size: side of the result in pixels.
        method: "lanczos" or "box".

    Returns:
        uint8 of shape (size, size).
    """
    height, width = grey.shape
    tall = height > size and height - size > 2 * (width - size)
    image = grey
    for axis in (0, 1) if tall else (1, 0):
        length = image.shape[axis]
        if length != size:
            resize = _box_axis if method == "box" else _lanczos_axis
            image = resize(image, size, axis)
    return np.array(image) if image is grey else image


def resize_nearly(grey: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """``resize_grey`` by LANCZOS without the rounding between the passes: 1 or 2 levels off.

    Two products, a third of the time for small pictures; for what is approximate already. Next to
    black and white more may differ, for the exact passes cut what rings beyond.
    """
    height, width = grey.shape
    found = _dense_weights(height, size).T @ (grey.astype(np.float32) @ _dense_weights(width, size))
    np.rint(found, out=found)
    return np.clip(found, 0, 255, out=found).astype(np.uint8)


def grey_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a picture of mode "L", uint8 (height, width), read-only: Pillow's own memory.

    ``np.asarray`` copies them in pieces, which takes as long as a quarter of the decoding.
    """
    width, height = image.size
    return np.asarray(pa.array(image).to_numpy(), np.uint8).reshape(height, width)


@lru_cache(maxsize=1024)
def lanczos_weights(length: int, size: int) -> Weights:
    """Fixed-point weights from ``length`` to ``size`` pixels, cut in bands of output pixels."""
    first, weights = _fixed_weights(length, size)
    fixed, taps = weights.astype(np.int64), weights.shape[1]
    upper = (fixed + (1 << (_LOW_BITS - 1))) >> _LOW_BITS
    lower = fixed - (upper << _LOW_BITS)
    largest = max(int(np.abs(half).sum(axis=1).max()) for half in (upper, lower))
    kind = np.float32 if 255 * largest < 1 << 24 else np.float64
    band = size if length <= _SHORT or size % _BAND else _BAND
    bands = []
    for start in range(0, size, band):
        low = int(first[start])
        high = min(length, int(first[start + band - 1]) + taps)
        block = np.zeros((high - low, 2 * band), kind)
        for column in range(band):
            row = start + column
            at = int(first[row]) - low
            inside = min(taps, high - low - at)
            block[at : at + inside, column] = upper[row, :inside]
            block[at : at + inside, band + column] = lower[row, :inside]
        bands.append((low, high, block))
    return Weights(band, tuple(bands))


@lru_cache(maxsize=1024)
def _dense_weights(length: int, size: int) -> NDArray[np.float32]:
    """float32 (length, size)."""
    first, fixed = _fixed_weights(length, size)
    dense = np.zeros((length, size), np.float32)
    for column in range(size):
        stop = min(length, int(first[column]) + fixed.shape[1])
        dense[first[column] : stop, column] = fixed[column, : stop - first[column]]
    return dense / np.float32(1 << _ONE_BITS)


def _box_axis(image: NDArray[np.uint8], size: int, axis: int) -> NDArray[np.uint8]:
    height, width = image.shape
    sides = (size, height) if axis == 1 else (width, size)
    return grey_pixels(Image.fromarray(image).resize(sides, Image.Resampling.BOX))


def _lanczos_axis(image: NDArray[np.uint8], size: int, axis: int) -> NDArray[np.uint8]:
    weights = lanczos_weights(image.shape[axis], size)
    pixels = image.astype(weights.bands[0][2].dtype)
    if axis == 1:
        parts = [pixels[:, low:high] @ block for low, high, block in weights.bands]
        halves = np.concatenate(parts, axis=1).reshape(len(image), -1, 2, weights.band)
        upper, lower = halves[:, :, 0], halves[:, :, 1]
    else:
        parts = [block.T @ pixels[low:high] for low, high, block in weights.bands]
        halves = np.concatenate(parts).reshape(-1, 2, weights.band, image.shape[1])
        upper, lower = halves[:, 0], halves[:, 1]
    sums = upper.astype(np.int32)
    sums <<= _LOW_BITS
    sums += lower.astype(np.int32)
    sums += 1 << (_ONE_BITS - 1)
    sums >>= _ONE_BITS
    shape = (len(image), size) if axis == 1 else (size, image.shape[1])
    np.maximum(sums, 0, out=sums)
    np.minimum(sums, 255, out=sums)
    return sums.astype(np.uint8).reshape(shape)


def _fixed_weights(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First input pixel (size,) and integer weights (size, taps) of each output pixel."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = _LOBES * stretch
    center = (np.arange(size) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), length)
    offset = np.arange(int((last - first).max()))
    at = (offset + first[:, None] - center[:, None] + 0.5) * (1.0 / stretch)
    values = _lanczos(at) * (offset < (last - first)[:, None])
    values /= values.sum(axis=1, keepdims=True)
    scaled = values * (1 << _ONE_BITS)
    fixed = np.trunc(scaled + np.copysign(0.5, scaled))
    # np.sin and np.sum may differ from C's in the last bit; it matters only next to a tie.
    nearest = np.abs(scaled) + 0.5
    unsure = np.abs(nearest - np.rint(nearest)) < _TIE
    for row in np.flatnonzero((unsure & (values != 0)).any(axis=1)):
        taps = int(last[row] - first[row])
        fixed[row, :taps] = _row_in_c_order(
            int(first[row]), taps, float(center[row]), 1.0 / stretch
        )
    return first, fixed


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = (x >= -3.0) & (x < 3.0)
    one = np.where(x == 0.0, 1.0, x * math.pi)
    three = np.where(x == 0.0, 1.0, x / 3 * math.pi)
    lobes = np.sin(one) / one * (np.sin(three) / three)
    return np.where(inside, np.where(x == 0.0, 1.0, lobes), 0.0)


def _row_in_c_order(first: int, taps: int, center: float, inverse: float) -> list[float]:
    values = []
    for x in range(taps):
        at = (x + first - center + 0.5) * inverse
        if at == 0.0 or not -3.0 <= at < 3.0:
            values.append(1.0 if at == 0.0 else 0.0)
        else:
            one, three = at * math.pi, at / 3 * math.pi
            values.append(math.sin(one) / one * (math.sin(three) / three))
    total = 0.0
    for value in values:
        total += value
    return [float(int(math.copysign(0.5, v) + v / total * (1 << _ONE_BITS))) for v in values]

"""Shrinking grey pictures with Pillow's exact 8-bit arithmetic, as two matrix products.

Pillow multiplies pixels with weights rounded to 22 fractional bits, sums in integers, and rounds to
uint8 between the two passes. Products and sums of such numbers are exact in float64, so a BLAS
product gives the same bytes whatever its order of summation, in a third of the time.

Pillow 13 runs the vertical pass first for tall pictures; earlier versions never do. Here the rule
is fixed (that of Pillow 13), so hashes do not change with the installed version.

Source: behaviour of Pillow's resampling (measured byte for byte in the tests); SPEC-dataset N1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Filter = Literal["lanczos", "box"]
Bands = tuple[tuple[int, int, NDArray[np.float64]], ...]

_ONE = 1 << 22
_SUPPORT: dict[Filter, float] = {"lanczos": 3.0, "box": 0.5}
_BAND = 8
"""Output pixels computed by one product: each needs only its own stretch of the input."""
_TIE = 1e-6
"""Weights closer than this to a rounding tie are computed again in C's order of operations."""


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
    for axis in ("rows", "columns") if tall else ("columns", "rows"):
        if axis == "columns" and width != size:
            image = _shrink_columns(image, weight_bands(width, size, method))
        elif axis == "rows" and height != size:
            image = _shrink_rows(image, weight_bands(height, size, method))
    return np.array(image) if image is grey else image


@lru_cache(maxsize=512)
def weight_bands(length: int, size: int, method: Filter) -> Bands:
    """Fixed-point weights from ``length`` to ``size`` pixels, cut in bands of output pixels.

    Returns:
        (first, last, weights) for each band: float64 integers of shape (last - first, band).
    """
    first, weights = _fixed_weights(length, size, method)
    bands = []
    for start in range(0, size, _BAND):
        rows = range(start, min(start + _BAND, size))
        low = int(first[start])
        high = min(length, int(first[rows[-1]]) + weights.shape[1])
        block = np.zeros((high - low, len(rows)))
        for column, row in enumerate(rows):
            at = int(first[row]) - low
            taps = min(weights.shape[1], high - low - at)
            block[at : at + taps, column] = weights[row, :taps]
        bands.append((low, high, block))
    return tuple(bands)


def _shrink_columns(image: NDArray[np.uint8], bands: Bands) -> NDArray[np.uint8]:
    sums = [image[:, low:high].astype(np.float64) @ block for low, high, block in bands]
    return _to_uint8(np.concatenate(sums, axis=1))


def _shrink_rows(image: NDArray[np.uint8], bands: Bands) -> NDArray[np.uint8]:
    sums = [block.T @ image[low:high].astype(np.float64) for low, high, block in bands]
    return _to_uint8(np.concatenate(sums, axis=0))


def _to_uint8(sums: NDArray[np.float64]) -> NDArray[np.uint8]:
    sums += _ONE // 2
    sums *= 1.0 / _ONE
    np.floor(sums, out=sums)
    np.clip(sums, 0, 255, out=sums)
    return sums.astype(np.uint8)


def _fixed_weights(
    length: int, size: int, method: Filter
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First input pixel (size,) and integer weights (size, taps) of each output pixel."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = _SUPPORT[method] * stretch
    center = (np.arange(size) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), length)
    offset = np.arange(int((last - first).max()))
    at = (offset + first[:, None] - center[:, None] + 0.5) * (1.0 / stretch)
    values = _kernel(at, method) * (offset < (last - first)[:, None])
    values /= values.sum(axis=1, keepdims=True)
    scaled = values * _ONE
    fixed = np.trunc(scaled + np.copysign(0.5, scaled))
    # np.sin and np.sum may differ from C's in the last bit; it matters only next to a tie.
    nearest = np.abs(scaled) + 0.5
    unsure = np.abs(nearest - np.rint(nearest)) < _TIE
    for row in np.flatnonzero((unsure & (values != 0)).any(axis=1)):
        taps = int(last[row] - first[row])
        fixed[row, :taps] = _row_in_c_order(
            int(first[row]), taps, float(center[row]), 1.0 / stretch, method
        )
    return first, fixed


def _kernel(x: NDArray[np.float64], method: Filter) -> NDArray[np.float64]:
    if method == "box":
        return ((x > -0.5) & (x <= 0.5)).astype(np.float64)
    inside = (x >= -3.0) & (x < 3.0)
    one = np.where(x == 0.0, 1.0, x * math.pi)
    three = np.where(x == 0.0, 1.0, x / 3 * math.pi)
    lobes = np.sin(one) / one * (np.sin(three) / three)
    return np.where(inside, np.where(x == 0.0, 1.0, lobes), 0.0)


def _row_in_c_order(
    first: int, taps: int, center: float, inverse: float, method: Filter
) -> list[float]:
    values = []
    for x in range(taps):
        at = (x + first - center + 0.5) * inverse
        if method == "box":
            values.append(1.0 if -0.5 < at <= 0.5 else 0.0)
        elif at == 0.0 or not -3.0 <= at < 3.0:
            values.append(1.0 if at == 0.0 else 0.0)
        else:
            one, three = at * math.pi, at / 3 * math.pi
            values.append(math.sin(one) / one * (math.sin(three) / three))
    total = 0.0
    for value in values:
        total += value
    return [float(int(math.copysign(0.5, v) + v / total * _ONE)) for v in values]

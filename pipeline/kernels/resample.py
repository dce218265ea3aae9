"""Shrinking grey pictures with Pillow's exact 8-bit arithmetic, as products of small matrices.

Pillow multiplies pixels with weights rounded to 22 fractional bits, sums in integers, and rounds to
uint8 between the two passes. Such weights are exact in float32, and a float32 product is wrong by
no more than a known bound: only sums closer than that to a rounding tie (0.3% of them) are added
up again in integers. So the bytes are Pillow's whatever the order of summation, in 0.4 of its time.
A box has few weights, at which Pillow itself is as fast: it does the passes, in our order.

Pillow 13 runs the vertical pass first for tall pictures; earlier versions never do. Here the rule
is fixed (that of Pillow 13), so hashes do not change with the installed version.

Source: behaviour of Pillow's resampling (measured byte for byte in the tests); SPEC-dataset N1;
Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1 (the bound).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Filter = Literal["lanczos", "box"]
Bands = tuple[tuple[int, int, NDArray[np.float32]], ...]

_ONE = 1 << 22
_LOBES = 3.0
_BAND = 8
"""Output pixels computed by one product: each needs only its own stretch of the input."""
_TIE = 1e-6
"""Weights closer than this to a rounding tie are computed again in C's order of operations."""
_ROUND_OFF = 2.0**-24
"""Of float32, relative."""
_MAX_UNSURE = 1 / 16
"""Share of sums near a tie beyond which all are added up in float64, where they are exact."""


_FEW = 1 << 15
"""Pixels up to which float64 is faster: a look for ties costs more than the products."""


class Weights(NamedTuple):
    """From a number of pixels to another.

    Attributes:
        bands: (first, last, weights) of each band of output pixels, float32 (last - first, band).
        first: int64 (size,), first input pixel of each output pixel.
        fixed: int64 (size, taps), weights in units of 2^-22.
        bound: largest error of a band's product.
    """

    bands: Bands
    first: NDArray[np.int64]
    fixed: NDArray[np.int64]
    bound: float


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


@lru_cache(maxsize=1024)
def lanczos_weights(length: int, size: int) -> Weights:
    """Fixed-point weights from ``length`` to ``size`` pixels, cut in bands of output pixels."""
    first, weights = _fixed_weights(length, size)
    fixed, taps = weights.astype(np.int64), weights.shape[1]
    factors = weights / _ONE
    bands = []
    for start in range(0, size, _BAND):
        rows = range(start, min(start + _BAND, size))
        low = int(first[start])
        high = min(length, int(first[rows[-1]]) + taps)
        block = np.zeros((high - low, len(rows)), np.float32)
        for column, row in enumerate(rows):
            at = int(first[row]) - low
            inside = min(taps, high - low - at)
            block[at : at + inside, column] = factors[row, :inside]
        bands.append((low, high, block))
    # Each term is rounded once a tap at most (zero weights add nothing), the sum once with its 0.5;
    # 1% covers the terms of second order.
    largest = 255 * float(np.abs(factors).sum(axis=1).max()) + 1
    bound = 1.01 * (taps + 1) * _ROUND_OFF * largest
    return Weights(tuple(bands), first, fixed, bound)


def _box_axis(image: NDArray[np.uint8], size: int, axis: int) -> NDArray[np.uint8]:
    height, width = image.shape
    sides = (size, height) if axis == 1 else (width, size)
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BOX))


def _lanczos_axis(image: NDArray[np.uint8], size: int, axis: int) -> NDArray[np.uint8]:
    weights = lanczos_weights(image.shape[axis], size)
    if image.size <= _FEW:
        return _exact_products(image, weights, axis)
    sums = _products(image, weights, axis, np.float32)
    sums += 0.5
    whole = np.floor(sums)
    sums -= whole
    sums -= 0.5
    unsure = np.flatnonzero(np.abs(sums, out=sums) > 0.5 - weights.bound)
    if len(unsure) > _MAX_UNSURE * sums.size:
        return _exact_products(image, weights, axis)
    out: NDArray[np.uint8] = np.clip(whole, 0, 255, out=whole).astype(np.uint8)
    if len(unsure):
        out.ravel()[unsure] = _exact_sums(image, weights, axis, *np.divmod(unsure, out.shape[1]))
    return out


def _exact_products(image: NDArray[np.uint8], weights: Weights, axis: int) -> NDArray[np.uint8]:
    sums = _products(image, weights, axis, np.float64)
    sums += 0.5
    np.floor(sums, out=sums)
    return np.asarray(np.clip(sums, 0, 255, out=sums), np.uint8)


def _products(
    image: NDArray[np.uint8], weights: Weights, axis: int, kind: type[Any]
) -> NDArray[Any]:
    """Weighted sums of the rows (axis 1) or columns (axis 0), exact in float64."""
    pixels = image.astype(kind)
    blocks = [(low, high, block.astype(kind, copy=False)) for low, high, block in weights.bands]
    if axis == 1:
        return np.concatenate([pixels[:, low:high] @ b for low, high, b in blocks], axis=1)
    return np.concatenate([b.T @ pixels[low:high] for low, high, b in blocks])


def _exact_sums(
    image: NDArray[np.uint8],
    weights: Weights,
    axis: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Chosen outputs in integers, uint8 (n,)."""
    which = columns if axis == 1 else rows
    # Taps beyond the edge have weight zero.
    at = weights.first[which][:, None] + np.arange(weights.fixed.shape[1])
    np.minimum(at, image.shape[axis] - 1, out=at)
    width = image.shape[1]
    at = at + (rows * width)[:, None] if axis == 1 else at * width + columns[:, None]
    products = image.ravel()[at] * weights.fixed[which]
    return np.asarray(np.clip((products.sum(axis=1) + _ONE // 2) >> 22, 0, 255), np.uint8)


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
    scaled = values * _ONE
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
    return [float(int(math.copysign(0.5, v) + v / total * _ONE)) for v in values]

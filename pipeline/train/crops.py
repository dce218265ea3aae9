"""Which part of a picture is cut: boxes and flips drawn from the sample's key alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash64, hash_ints, uniform

CROP_ATTEMPTS = 10
_DRAWS = CROP_ATTEMPTS * 4
Uniforms = Sequence[Sequence[float]]
"""Random numbers in [0, 1), four for each attempt at a crop."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_uniforms(
    keys: pa.Array, copies: NDArray[np.int64], seed: int, epoch: int
) -> NDArray[np.float64]:
    """The random numbers of crops, a function of the samples and not of who reads them.

    Args:
        keys: n sample keys.
        copies: int64 (n,), number of each sample's appearance in the epoch.
        seed: of the run.
        epoch: 0, 1, ...

    Returns:
        float64 (n, CROP_ATTEMPTS, 4) in [0, 1).
    """
    streams = hash64(keys, seed, f"crop/{epoch}").view(np.int64)
    numbers = copies[:, None] * _DRAWS + np.arange(_DRAWS)
    with np.errstate(over="ignore"):
        draws = hash_ints(streams[:, None] + numbers, seed, "crop")
    return uniform(draws).reshape(-1, CROP_ATTEMPTS, 4)


def flips(keys: pa.Array, copies: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.bool_]:
    """Which crops are mirrored left to right: each with one half, drawn apart from its crop.

    Arguments as for ``crop_uniforms``; returns bool (n,). Source: BiT section 3.2 (SPEC E2).
    """
    streams = hash64(keys, seed, f"flip/{epoch}").view(np.int64)
    with np.errstate(over="ignore"):
        return uniform(hash_ints(streams + copies, seed, "flip")) < 0.5


def choose_crop(
    height: int, width: int, uniforms: Uniforms, min_area: float, max_aspect: float
) -> Box:
    """A box of random area and aspect: the first attempt that fits, else the largest middle one.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        uniforms: (attempts, 4) for area, aspect, top, left.
        min_area: least share of the picture; the largest is 1.
        max_aspect: aspects are log-uniform in [1 / max_aspect, max_aspect].

    Source: Szegedy et al. 2015, section 6; paper A.1; SPEC A12.
    """
    scale = math.log(max_aspect)
    for at_area, at_aspect, at_top, at_left in uniforms:  # the first fits nearly always
        area = (min_area + (1 - min_area) * at_area) * (height * width)
        aspect = math.exp((2 * at_aspect - 1) * scale)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            return Box(int(at_top * (height - h + 1)), int(at_left * (width - w + 1)), h, w)
    return _middle_crop(height, width, max_aspect)


def _middle_crop(height: int, width: int, max_aspect: float) -> Box:
    w = max(1, min(width, round(height * max_aspect)))
    h = max(1, min(height, round(width * max_aspect)))
    return Box((height - h) // 2, (width - w) // 2, h, w)

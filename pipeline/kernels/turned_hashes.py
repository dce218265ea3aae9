"""Perceptual hashes of all flips and turns of a picture, from its stored thumbnail.

Turned copies are found by comparing the eight hashes of one picture with the one of another.

Source: SPEC-dataset N7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.fingerprints import GREY_SIDE, phash_grey
from pipeline.kernels.pair_search import NUM_TURNS, turned


def turned_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Perceptual hashes of the eight turns.

    The thumbnail is halved by averaging, so a hash differs from imagehash's (Lanczos from the whole
    picture) in some bits: compare these with each other, never with the column `phash`.

    Args:
        thumbnails: uint8 (n, 64, 64).

    Returns:
        uint64 (n, 8), in the order of `pipeline.kernels.pair_search.turned`; column 0 is upright.
    """
    n = len(thumbnails)
    halves = thumbnails.reshape(n, GREY_SIDE, 2, GREY_SIDE, 2).astype(np.uint16).sum(axis=(2, 4))
    small = turned(((halves + 2) // 4).astype(np.uint8)).reshape(-1, GREY_SIDE, GREY_SIDE)
    return phash_grey(small)[0].reshape(n, NUM_TURNS)


def turned_distance(
    a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least Hamming distance of pairs over the turns, taken both ways round.

    Args:
        a: uint64 (n, 8), `turned_hashes` of one picture of each pair.
        b: uint64 (n, 8), of the other.

    Returns:
        distance: int64 (n,), 0 to 64; the same when a and b change places.
        turn: int64 (n,), the turn of ``a`` whose hash is nearest to upright ``b``.
    """
    there = np.bitwise_count(a ^ b[:, :1]).astype(np.int64)
    back = np.bitwise_count(b ^ a[:, :1]).astype(np.int64)
    return np.minimum(there.min(axis=1), back.min(axis=1)), there.argmin(axis=1)

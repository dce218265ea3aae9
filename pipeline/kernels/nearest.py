"""The nearest of a small set for every row of a large one, exactly, by blocked products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Rows and columns of a product at once: 64 MiB of scratch."""


def nearest_hamming(
    hashes: NDArray[np.uint64], stored: NDArray[np.uint64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Least Hamming distance of 64-bit hashes.

    Bits become signs; the distance is (64 - product) / 2, exact in float32.

    Args:
        hashes: uint64 (n,).
        stored: uint64 (m,).

    Returns:
        float32 (n,) distances and int64 (n,) positions in ``stored``, the first of equals; infinity
        and -1 where ``stored`` is empty.
    """
    best, at = nearest_product(_signs(hashes), _signs(stored))
    return ((64.0 - best) / 2.0).astype(np.float32), at


def nearest_cosine(
    x: NDArray[np.float32], stored: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Greatest cosine of unit vectors.

    Args:
        x: float32 (n, d), unit rows.
        stored: float32 (m, d), unit rows.

    Returns:
        float32 (n,) cosines and int64 (n,) positions, the first of equals; minus infinity and -1
        where ``stored`` is empty.
    """
    return nearest_product(x, stored)


def nearest_product(
    x: NDArray[np.float32], stored: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Greatest inner product of every row with the rows of a small set; see ``nearest_cosine``."""
    best = np.full(len(x), -np.inf, np.float32)
    at = np.full(len(x), -1, np.int64)
    if len(stored) == 0 or len(x) == 0:
        return best, at
    for i in range(0, len(x), BLOCK):
        rows = slice(i, i + BLOCK)
        for j in range(0, len(stored), BLOCK):
            products = x[rows] @ stored[j : j + BLOCK].T
            top = products.argmax(axis=1)
            value = products[np.arange(len(top)), top]
            better = value > best[rows]
            best[rows] = np.where(better, value, best[rows])
            at[rows] = np.where(better, top + j, at[rows])
    return best, at


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(bits, np.float32) * 2.0 - 1.0

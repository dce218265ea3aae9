"""The nearest of a small set for every row of a large one, exactly, by blocked products.

Float32 products only nominate, with a margin wider than their error; the nominees of a row are
multiplied again in float64, row by row. So the answer does not depend on how rows are cut into
batches, and it is the one that ``cells.cosine_pairs`` and ``groups.Verifier`` would give.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.cells import MARGIN
from pipeline.kernels.vectors import row_products

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
    best = np.full(len(hashes), -np.inf, np.float32)
    at = np.full(len(hashes), -1, np.int64)
    signs = _signs(stored)
    for i in range(0, len(hashes), BLOCK):
        rows = slice(i, i + BLOCK)
        block = _signs(hashes[rows])
        for j in range(0, len(stored), BLOCK):
            products = block @ signs[j : j + BLOCK].T
            top = products.argmax(axis=1)
            value = products[np.arange(len(top)), top]
            better = value > best[rows]
            best[rows][better] = value[better]
            at[rows][better] = top[better] + j
    return ((64.0 - best) / 2.0).astype(np.float32), at


def nearest_cosine(
    x: NDArray[np.float32], stored: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Greatest cosine of unit vectors.

    Args:
        x: float32 (n, d), unit rows.
        stored: float32 (m, d), unit rows; distinct, or all copies of one are decided in float64.

    Returns:
        float64 (n,) cosines and int64 (n,) positions, the first of equals; minus infinity and -1
        where ``stored`` is empty.
    """
    best = np.full(len(x), -np.inf)
    at = np.full(len(x), -1, np.int64)
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(stored), BLOCK):
            products = x[i : i + BLOCK] @ stored[j : j + BLOCK].T
            # Twice the margin: of the best so far, and of the product that nominates.
            floor = np.maximum(products.max(axis=1), best[i : i + BLOCK]) - 2 * MARGIN
            rows, columns = np.nonzero(products >= floor[:, None].astype(np.float32))
            rows, columns = rows + i, columns + j
            exact = row_products(x, stored, rows, columns)
            order = np.lexsort((columns, -exact, rows))
            first = order[np.flatnonzero(np.diff(rows[order], prepend=-1))]
            first = first[exact[first] > best[rows[first]]]
            best[rows[first]], at[rows[first]] = exact[first], columns[first]
    return best, at


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(bits, np.float32) * 2.0 - 1.0

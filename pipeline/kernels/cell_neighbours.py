"""The nearest few of each vector among the members of a cell, above a cosine.

Candidates of a verifier want a low cosine, at which a cell of 10^4 members may hold 10^7 pairs; the
nearest few bound them. As in ``cells``, float32 products only nominate and float64 decides.

Source: SPEC-dataset N2, N7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.cells import MARGIN, CosinePairs
from pipeline.kernels.vectors import row_products


def nearest_in_cell(
    x: NDArray[np.float32], tau: float, num_nearest: int, block: int = 512
) -> CosinePairs:
    """Pairs with cosine >= tau of which one is among the other's nearest.

    Args:
        x: float32 (n, d), unit rows, ascending by id: of equally near ones the first counts.
        tau: least cosine.
        num_nearest: neighbours of a row.
        block: rows multiplied at once; scratch is 5 n bytes for each.

    Returns:
        Pairs with left < right, each once. At most n x num_nearest.
    """
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(x), block):
        rows, columns, cosine = _nominated(x, start, x[start : start + block], tau, num_nearest)
        order = np.lexsort((columns, -cosine, rows))
        rows, columns, cosine = rows[order], columns[order], cosine[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        near = (place < num_nearest) & (cosine >= tau)
        left.append(rows[near])
        right.append(columns[near])
    one, two = np.concatenate(left), np.concatenate(right)
    pairs = np.unique(np.stack([np.minimum(one, two), np.maximum(one, two)]), axis=1)
    low, high = np.ascontiguousarray(pairs[0]), np.ascontiguousarray(pairs[1])
    return CosinePairs(low, high, row_products(x, x, low, high).astype(np.float32))


def _nominated(
    x: NDArray[np.float32], start: int, part: NDArray[np.float32], tau: float, num_nearest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, columns and exact cosines of every pair that may be among a row's nearest."""
    rough = part @ x.T
    own = np.arange(len(part))
    rough[own, start + own] = -2.0
    at = max(len(x) - num_nearest, 0)
    limit = np.maximum(np.partition(rough, at, axis=1)[:, at], np.float32(tau))
    # The limit and what is compared with it are each off by one margin at most.
    rows, columns = np.nonzero(rough >= limit[:, None] - np.float32(2 * MARGIN))
    kept = rows + start != columns
    rows, columns = rows[kept] + start, columns[kept]
    return rows, columns, row_products(x, x, rows, columns)

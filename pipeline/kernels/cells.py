"""Pairs of embeddings above a cosine: coarse k-means cells, several cells a vector, exact inside.

Vectors are float32 and L2-normalised (``vectors.l2_normalise``), so a dot product is the cosine.

Nothing depends on slices, partitions or threads: float32 products only nominate, with a margin
wider than their error; what decides (the order of cells, the threshold) is computed again in
float64, row by row, in one order of summation.

Cost for n vectors, k cells, p probes: n k d for the assignment, n p^2 n / (2 k) d for the pairs,
so k about p sqrt(n / 2) balances them. At 1.329 billion x 256 with p = 2, k = 50,000: 4e16 and
2e16 floating-point operations, some 200 core-hours.

Source: SPEC-dataset N2 (semantic tier), N6.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.cosine_bounds import Nominator
from pipeline.kernels.vectors import row_products

MARGIN = 2e-5
"""More than the error of a float32 product of unit vectors of up to 4,096 dimensions."""
_SPARE = 4
"""Cells nominated beyond the probes, to decide near ties among them."""


class CosinePairs(NamedTuple):
    """Pairs as positions, ordered by (left, right). int64, int64, float32 (all (n,))."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    cosine: NDArray[np.float32]


def num_cells_for(num_vectors: int, num_probes: int) -> int:
    """Number of cells that balances assignment and comparison: ceil(p sqrt(n / 2))."""
    return max(1, math.ceil(num_probes * math.sqrt(num_vectors / 2)))


def assign_cells(
    x: NDArray[np.float32], centroids: NDArray[np.float32], num_probes: int
) -> NDArray[np.int32]:
    """The nearest cells of each vector, nearest first; ties to the lower cell.

    Args:
        x: float32 (n, d), unit rows.
        centroids: float32 (k, d).
        num_probes: cells a vector; at most k are returned.

    Returns:
        int32 (n, min(num_probes, k)).
    """
    num_cells = len(centroids)
    num_probes = min(num_probes, num_cells)
    width = min(num_probes + _SPARE, num_cells)
    if not len(x):
        return np.zeros((0, num_probes), np.int32)
    scores, cells = faiss.knn(
        np.ascontiguousarray(x), centroids, width, metric=faiss.METRIC_INNER_PRODUCT
    )
    chosen = np.asarray(cells, dtype=np.int32)
    result = np.ascontiguousarray(chosen[:, :num_probes])
    compared = scores[:, : num_probes + 1]
    unsure = np.flatnonzero((compared[:, :-1] - compared[:, 1:] <= MARGIN).any(axis=1))
    exact = row_products(
        x, centroids, np.repeat(unsure, width), chosen[unsure].ravel().astype(np.int64)
    ).reshape(len(unsure), width)
    order = np.lexsort((chosen[unsure], -exact), axis=1)[:, :num_probes]
    result[unsure] = np.take_along_axis(chosen[unsure], order, axis=1)
    if width < num_cells:
        # More near ties than nominees: decide among all cells.
        crowded = unsure[scores[unsure, -1] >= scores[unsure, num_probes - 1] - MARGIN]
        for row in crowded:
            every = np.arange(num_cells)
            score = row_products(x, centroids, np.full(num_cells, row), every)
            result[row] = np.lexsort((every, -score))[:num_probes]
    return result


def cosine_pairs(
    x: NDArray[np.float32],
    tau: float,
    *,
    cells: NDArray[np.int32] | None = None,
    cell: int | None = None,
    block: int = 512,
) -> CosinePairs:
    """All pairs of one cell with cosine >= tau.

    Args:
        x: float32 (n, d), unit rows: the members of one cell (or a whole small set).
        tau: least cosine.
        cells: int32 (n, p) from ``assign_cells``. With it, a pair that shares several cells is
            reported by the lowest of them only.
        cell: the cell these rows are the members of; needed with ``cells``.
        block: rows multiplied at once; scratch is about 8 block^2
            bytes. Small blocks leave out nearly half of the products, those below the diagonal.

    Returns:
        Pairs with left < right.
    """
    found = []
    nominator = Nominator(tau, MARGIN)
    one, other = nominator.sides(x, x)
    for i in range(0, len(x), block):
        for j in range(i, len(x), block):
            blocks = one.part(slice(i, i + block)), other.part(slice(j, j + block))
            left, right = nominator.pairs(*blocks)
            if i == j:
                upper = left < right
                left, right = left[upper], right[upper]
            found.append((left + i, right + j))
    return _decide(x, x, found, tau, cells, cells, cell)


def cosine_pairs_between(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    tau: float,
    *,
    cells_a: NDArray[np.int32] | None = None,
    cells_b: NDArray[np.int32] | None = None,
    cell: int | None = None,
    block: int = 512,
) -> CosinePairs:
    """All pairs of one row of ``a`` and one of ``b`` with cosine >= tau.

    Without cells it is exact over both sets: what validation overlap uses. With cells, as in
    ``cosine_pairs``.

    Returns:
        ``left``: position in ``a``; ``right``: position in ``b``.
    """
    found = []
    nominator = Nominator(tau, MARGIN)
    one, other = nominator.sides(a, b)
    for i in range(0, len(a), block):
        for j in range(0, len(b), block):
            blocks = one.part(slice(i, i + block)), other.part(slice(j, j + block))
            left, right = nominator.pairs(*blocks)
            found.append((left + i, right + j))
    return _decide(a, b, found, tau, cells_a, cells_b, cell)


def absorb_hot(
    x: NDArray[np.float32], cosine: float, *, num_leaders: int = 16, min_members: int = 1024
) -> NDArray[np.int64]:
    """Collapse masses of nearly equal vectors in a cell before its pairs are taken: linear time.

    Up to ``num_leaders`` rows, evenly spread, look at all rows; one with ``min_members`` rows
    within ``cosine`` (well above tau, 0.999 or so) takes them as a star. The caller emits the
    star's links and searches pairs among the rows that lead themselves.

    Args:
        x: float32 (n, d), unit rows, ordered by id.
        cosine: least cosine to a leader.

    Returns:
        int64 (n,): position of each row's leader; its own for most.
    """
    leader = np.arange(len(x))
    if len(x) < min_members:
        return leader
    for position in sorted({len(x) * k // num_leaders for k in range(num_leaders)}):
        if leader[position] != position:
            continue
        rows = np.flatnonzero(leader == np.arange(len(x)))
        near = rows[x[rows] @ x[position] >= cosine - MARGIN]
        exact = row_products(x, x, near, np.full(len(near), position))
        near = near[exact >= cosine]
        if len(near) >= min_members:
            leader[near] = position
    # A leader taken by a later one passes its members on.
    return np.asarray(leader[leader], dtype=np.int64)


def pair_recall(
    found_left: NDArray[np.int64],
    found_right: NDArray[np.int64],
    true_left: NDArray[np.int64],
    true_right: NDArray[np.int64],
) -> float:
    """Share of true pairs among the found ones, in either order; 1.0 if there is none to find."""
    found = set(_unordered(found_left, found_right))
    true = set(_unordered(true_left, true_right))
    return len(true & found) / len(true) if true else 1.0


def _unordered(left: NDArray[np.int64], right: NDArray[np.int64]) -> list[tuple[int, int]]:
    low, high = np.minimum(left, right), np.maximum(left, right)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _decide(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    tau: float,
    cells_a: NDArray[np.int32] | None,
    cells_b: NDArray[np.int32] | None,
    cell: int | None,
) -> CosinePairs:
    none = np.zeros(0, np.int64)
    left = np.concatenate([none, *(part[0] for part in found)])
    right = np.concatenate([none, *(part[1] for part in found)])
    if cells_a is not None and cells_b is not None:
        mine = _lowest_shared(cells_a[left], cells_b[right]) == cell
        left, right = left[mine], right[mine]
    cosine = row_products(a, b, left, right)
    near = cosine >= tau
    left, right, cosine = left[near], right[near], cosine[near]
    order = np.lexsort((right, left))
    return CosinePairs(left[order], right[order], cosine[order].astype(np.float32))


def _lowest_shared(one: NDArray[np.int32], two: NDArray[np.int32]) -> NDArray[np.int64]:
    """Lowest cell that both rows list, int64 (n,); a number above all cells if none."""
    lowest = np.full(len(one), np.iinfo(np.int64).max)
    for i in range(one.shape[1]):
        for j in range(two.shape[1]):
            shared = one[:, i] == two[:, j]
            lowest[shared] = np.minimum(lowest[shared], one[shared, i])
    return lowest

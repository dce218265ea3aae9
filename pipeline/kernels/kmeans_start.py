"""k-means++ start, plain or greedy, drawn in blocks.

A step of k-means++ needs the distances of a few candidates to every point: one by one that is a
product of three rows with the whole matrix, bound by memory. Candidates are drawn ahead instead, a
block of them by the masses of that moment, and their distances are one matrix product. Masses only
fall while centroids are added, so a candidate that is kept with probability (mass now / mass when
drawn) is a fair draw of now: the same distribution as step by step.

Source: Arthur, Vassilvitskii 2007 (k-means++ and its greedy form); von Neumann 1951 (rejection).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_BLOCK = 512
"""Candidates of a block at most: later ones are rejected more often."""
_BLOCK_ELEMENTS = 1 << 23
"""Distances of a block: 32 MiB."""


def greedy_start(
    x: NDArray[np.float32],
    weights: NDArray[np.float64],
    k: int,
    num_candidates: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of k starting centroids, and the one nearest to each point.

    Each step draws candidates with probability weight * squared distance to the nearest centroid,
    and keeps the one that lowers the weighted sum of those distances most, the first at ties.

    Args:
        x: float32 (n, d), rows distinct.
        weights: float64 (n,), > 0.
        k: number of centroids, in [1, n].
        num_candidates: candidates of a step, >= 1.
        rng: source of chance.

    Returns:
        rows: int64 (k,), distinct.
        owner: int64 (n,), position in rows; ``owner[rows] == arange(k)``, so none is without.
    """
    n = len(x)
    square = np.einsum("nd,nd->n", x, x)
    one = np.ones_like(square)
    # One product gives distances: (-2 y, 1, |y|^2) . (x, |x|^2, 1) = |x - y|^2.
    left, right = np.column_stack([-2 * x, one, square]), np.column_stack([x, square, one])
    rows = np.zeros(k, np.int64)
    rows[0] = _draw(weights, rng.random(1))[0]
    owner = np.zeros(n, np.int64)
    nearest = np.maximum(right @ left[rows[0]], 0)
    nearest[rows[0]] = 0.0
    light = weights.astype(np.float32)
    done, most = 1, max(num_candidates, min(_MAX_BLOCK, _BLOCK_ELEMENTS // n))
    size = min(4 * num_candidates, most)
    while done < k:
        mass = weights * nearest
        if not mass.any():  # what is left equals a centroid up to rounding
            rows[done:] = np.setdiff1d(np.arange(n), rows[:done])[: k - done]
            break
        pool = _draw(mass, rng.random(size))
        distances = left[pool] @ right.T
        bar = rng.random(size) * nearest[pool]
        at, before = 0, done
        while done < k:
            kept = at + np.flatnonzero(bar[at:] < nearest[pool[at:]])[:num_candidates]
            if len(kept) < num_candidates:
                break
            after = np.minimum(distances[kept], nearest)
            best = int(np.argmin(after @ light))
            owner[after[best] < nearest] = done
            rows[done], nearest = pool[kept[best]], np.maximum(after[best], 0)
            nearest[rows[done]] = 0.0
            at, done = int(kept[-1]) + 1, done + 1
        # Twice the candidates that this block could use.
        size = min(max(2 * (done - before), 1) * num_candidates, most)
    owner[rows] = np.arange(k)
    return rows, owner


def _draw(mass: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows drawn in proportion to their mass; rows without mass are never drawn."""
    cumulative = np.cumsum(mass)
    last = int(np.flatnonzero(mass)[-1])
    rows = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return np.asarray(np.minimum(rows, last), np.int64)

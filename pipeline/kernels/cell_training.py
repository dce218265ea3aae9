"""Centroids of the coarse cells of ``cells``: spherical k-means, the same bits on any threads.

Rows go through the products in blocks whose size follows from the number of centroids alone, each
block on one thread of BLAS and several blocks at once; sums are taken in the order of the rows.
faiss's k-means, which stood here before, has to be held to one thread for that.

Cost of an iteration over n rows, k centroids: 2 n k d operations. At 1.329 billion images, 77,000
cells of 64 rows of 256: 2e14, five of them a quarter of an hour of 16 cores. Memory: the sample,
and 64 MiB a thread.

Source: SPEC-dataset N2; Dhillon, Modha 2001.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.kernels.hashing import hash_ints

_BLOCK_VALUES = 1 << 24
"""Cosines held by a thread."""


def train_centroids(
    sample: NDArray[np.float32], num_cells: int, *, seed: int, num_iterations: int = 5
) -> NDArray[np.float32]:
    """Spherical k-means centroids from rows drawn by hash.

    A centroid without rows starts anew at one of the rows that are farthest from theirs.

    Args:
        sample: float32 (n, d), unit rows, in an order that follows from their ids alone (the
            bottom-k rows by a hash of the id, sorted by it), so that the result does too.
        num_cells: cells wanted; fewer come back if the sample is smaller.
        seed: of the starting rows.
        num_iterations: Lloyd iterations. Cells need not be the best ones, only of like size, and
            five leave them as even as ten.

    Returns:
        float32 (k, d), unit rows.

    Raises:
        ValueError: empty sample.
    """
    if not len(sample):
        raise ValueError("sample: 0 vectors, expected at least one to place cells")
    x = np.ascontiguousarray(sample, dtype=np.float32)
    if num_cells >= len(x):
        return x
    order = np.argsort(hash_ints(np.arange(len(x)), seed, "cell_starts"), kind="stable")
    centroids = x[order[:num_cells]]
    for _ in range(num_iterations):
        cell, cosine = _nearest(x, centroids)
        centroids = _means(x, cell, cosine, centroids)
    return centroids


def _nearest(
    x: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Centroid of the highest cosine of each row, and that cosine."""
    size = max(1, _BLOCK_VALUES // len(centroids))
    turned = np.ascontiguousarray(centroids.T)
    cell, cosine = np.empty(len(x), np.int64), np.empty(len(x), np.float32)

    def block(start: int) -> None:
        of_block = slice(start, start + size)
        products = x[of_block] @ turned
        best = products.argmax(axis=1)
        cell[of_block] = best
        cosine[of_block] = products[np.arange(len(best)), best]

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with threadpool_limits(limits=1), ThreadPoolExecutor(threads) as pool:
        list(pool.map(block, range(0, len(x), size)))
    return cell, cosine


def _means(
    x: NDArray[np.float32],
    cell: NDArray[np.int64],
    cosine: NDArray[np.float32],
    before: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Directions of the sums of each centroid's rows."""
    counts = np.bincount(cell, minlength=len(before))
    order = np.argsort(cell, kind="stable")
    present, empty = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    starts = (np.cumsum(counts) - counts)[present]
    after = before.copy()
    after[present] = np.add.reduceat(x[order], starts, axis=0)
    after[empty] = x[np.argsort(cosine, kind="stable")[: len(empty)]]
    length = np.linalg.norm(after, axis=1, keepdims=True)
    # Rows that cancel out leave no direction: the centroid stays where it was.
    return np.where(length > 0, after / np.where(length > 0, length, 1), before)

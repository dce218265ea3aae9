"""Planted terms of the concreteness benchmarks: made on the fly, the same for every system.

Positives are pool-like noise shifted by a strength of the term's own, from none (separability 0.5)
to nearly separable (1.0). Every third term is shifted along one axis in both directions, so that no
hyperplane tells it from the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.concreteness import NegativePool
from pipeline.kernels.hashing import hash_ints

DIMENSIONS = 256
LINEAR_STRENGTH, TWO_SIDED_STRENGTH = 4.5, 6.5
"""Largest shift, in standard deviations of the noise."""
_BLOCK = 4096
"""Rows of noise that terms share, at places of their own: generating anew costs more than
training."""


def strength_of(term_ids: NDArray[np.integer]) -> NDArray[np.float64]:
    """Planted strength of each term, uniform in [0, 1)."""
    return hash_ints(term_ids, 0, "planted.strength").astype(np.float64) / 2.0**64


def pool_of(size: int, dimensions: int = DIMENSIONS) -> NegativePool:
    """Negatives: noise, carrying no term."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((size, dimensions), np.float32)
    nothing = np.zeros(size + 1, np.int64)
    return NegativePool.build(hash_ints(np.arange(size), 0, "pool"), x, nothing, nothing[:0])


class Positives:
    """Positives of any term, a function of its id alone.

    Args:
        support: rows a term.
        dimensions: d.
    """

    def __init__(self, support: int, dimensions: int = DIMENSIONS) -> None:
        rng = np.random.default_rng(2)
        self._support, self._dimensions = support, dimensions
        self._noise = rng.standard_normal((_BLOCK + support, dimensions), np.float32)

    def of(self, term_id: int) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
        """Embeddings, float32 (support, d), and 64-bit image hashes of a term's positives."""
        rng = np.random.default_rng([3, term_id])
        first = int(rng.integers(_BLOCK))
        axis = rng.standard_normal(self._dimensions)
        axis /= np.linalg.norm(axis)
        shift = float(strength_of(np.array([term_id]))[0])
        if term_id % 3 == 2:
            sign = rng.integers(0, 2, self._support) * 2.0 - 1.0
            amount = sign * (TWO_SIDED_STRENGTH * shift)
        else:
            amount = np.full(self._support, LINEAR_STRENGTH * shift)
        # A rotation of the columns makes the shared noise another sample for each term.
        noise = np.roll(self._noise[first : first + self._support], int(rng.integers(256)), axis=1)
        rows = noise + np.outer(amount, axis).astype(np.float32)
        ids = np.arange(self._support, dtype=np.int64) + (term_id + 1) * 10**6
        return rows, hash_ints(ids, 0, "image")

"""Which pairs of unit vectors may be near, from a quarter of their dimensions.

The squared distance of two vectors is 2 - 2 cosine, and that of their projections on orthogonal
directions is no larger. A pair whose projections are further apart than sqrt(2 - 2 tau) so has no
cosine of tau: most pairs of a cell fall to a product of a quarter of the width. Random directions
hold m / d of a distance, give or take sqrt(2 / m) of it (Johnson, Lindenstrauss 1984), so what is
left has a cosine above some 1 - 4 (1 - tau). Where that is much, as with vectors that are all near
each other or with a low tau, whole products are made instead: the pairs are the same.

Source: SPEC-dataset N2 (semantic tier).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARE = 4
"""Of d dimensions, d / SHARE are looked at first."""
_LEAST_WIDTH, _LEAST_ROWS, _LEAST_TAU = 128, 256, 0.9
"""Below these a whole product costs less, or as much."""
_MOST_LEFT = 256
"""A block in which more than one pair in so many is left is multiplied whole. Twice what the
diagonal of a block of 512 has."""
_PATIENCE = 3
"""Blocks in a row that are multiplied whole after all, before no more are looked at first."""


class Side(NamedTuple):
    """Rows of one side: unit vectors (n, d) and, if a bound is used, its factor (n, m + 2)."""

    x: NDArray[np.float32]
    factor: NDArray[np.float32] | None

    def part(self, rows: slice) -> Side:
        """Some of the rows."""
        return Side(self.x[rows], None if self.factor is None else self.factor[rows])


class Nominator:
    """Pairs of blocks that may have a cosine of tau; float32 with a margin, see ``cells``."""

    def __init__(self, tau: float, margin: float) -> None:
        self._tau, self._margin = tau, margin
        self._failed = 0

    def sides(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[Side, Side]:
        """Both sides, float32 (n, d) and (m, d) unit rows, with the factors of the bound where it
        may pay: a quarter of the memory more.

        Projections p, q have |p - q|^2 / 2 = |p|^2 / 2 + |q|^2 / 2 - p q: with two columns more,
        one product and one threshold.
        """
        width = a.shape[1]
        is_small = width < _LEAST_WIDTH or min(len(a), len(b)) < _LEAST_ROWS
        if is_small or self._tau < _LEAST_TAU:
            return Side(a, None), Side(b, None)
        directions = _directions(width)
        left = _factor(a, directions)
        right = left if a is b else _factor(b, directions)
        m = directions.shape[1]
        turned = np.concatenate([right[:, :m], right[:, m + 1 :], right[:, m : m + 1]], axis=1)
        return Side(a, left), Side(b, turned)

    def pairs(self, a: Side, b: Side) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in both blocks of the pairs that may be near."""
        if a.factor is not None and b.factor is not None and self._failed < _PATIENCE:
            hits = np.flatnonzero(a.factor @ b.factor.T >= np.float32(self._tau - 1 - self._margin))
            if len(hits) * _MOST_LEFT <= len(a.x) * len(b.x):
                self._failed = 0
                left, right = np.divmod(hits, max(len(b.x), 1))
                cosine = np.einsum("nd,nd->n", a.x[left], b.x[right])
                near = cosine >= np.float32(self._tau - self._margin)
                return left[near], right[near]
            self._failed += 1
        hits = np.flatnonzero(a.x @ b.x.T >= np.float32(self._tau - self._margin))
        left, right = np.divmod(hits, max(len(b.x), 1))
        return left, right


def _factor(x: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Projections, minus half their squared length, and 1: float32 (n, m + 2)."""
    m = directions.shape[1]
    out = np.empty((len(x), m + 2), np.float32)
    np.matmul(x, directions, out=out[:, :m])
    out[:, m] = np.einsum("nm,nm->n", out[:, :m], out[:, :m]) / -2
    out[:, m + 1] = 1
    return out


@lru_cache(maxsize=4)
def _directions(width: int) -> NDArray[np.float32]:
    """Random orthogonal directions, float32 (d, d / SHARE)."""
    random = np.random.default_rng(0).standard_normal((width, width // SHARE))
    return np.ascontiguousarray(np.linalg.qr(random)[0], np.float32)

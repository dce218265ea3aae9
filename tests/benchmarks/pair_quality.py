"""Recall at a stated precision of ranked pairs, pooled over edits, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRECISION = 0.95
RESAMPLES = 500


@dataclass(frozen=True)
class Ranked:
    """Pairs that a system proposed, with its scores; a pair that is not here is a miss.

    Attributes:
        photo: (m,), family of the query, 0 to num_photos - 1.
        copy: (m,), which edit the query is.
        is_same: (m,), whether the query was made from the original it is compared with.
        score: (m,), higher is more alike.
        num_photos: families; each has one query of every edit.
    """

    photo: NDArray[np.int64]
    copy: NDArray[np.int64]
    is_same: NDArray[np.bool_]
    score: NDArray[np.floating]
    num_photos: int

    def of(self, copies: Sequence[int]) -> Ranked:
        """The pairs of some edits."""
        kept = np.isin(self.copy, copies)
        return Ranked(
            self.photo[kept],
            self.copy[kept],
            self.is_same[kept],
            self.score[kept],
            self.num_photos,
        )


def pooled_threshold(
    pairs: Ranked, weight: NDArray[np.floating] | None = None, precision: float = PRECISION
) -> float:
    """Lowest score from which the pairs are right with the precision, infinite where none is.

    Args:
        pairs: of all edits in the pool.
        weight: (num_photos,), how often each photo was drawn; None for once each.
        precision: in (0, 1].
    """
    order = np.argsort(-pairs.score, kind="stable")
    score, is_same = pairs.score[order], pairs.is_same[order]
    each = np.ones(len(order)) if weight is None else weight[pairs.photo[order]]
    taken, right = np.cumsum(each), np.cumsum(each * is_same)
    last = np.append(score[1:] != score[:-1], True)[: len(score)]
    good = np.flatnonzero(last & (taken > 0) & (right >= precision * taken))
    return float(score[good[-1]]) if len(good) else float("inf")


def recall_by_copy(
    pairs: Ranked, threshold: float, num_copies: int, weight: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Share of each edit's queries whose original was found, float64 (num_copies,)."""
    each = np.ones(pairs.num_photos) if weight is None else weight
    hit = pairs.is_same & (pairs.score >= threshold)
    found = np.bincount(pairs.copy[hit], each[pairs.photo[hit]], minlength=num_copies)
    return np.asarray(found / each.sum())


def with_intervals(
    pairs: Ranked, pool: Sequence[int], groups: dict[str, Sequence[int]], seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Recall of groups of edits at one pooled threshold, with its 95% bootstrap interval.

    Photos are drawn, not pairs: the copies of a photo fail together. The threshold is set anew on
    every draw.

    Args:
        pairs: of all edits.
        pool: edits whose pairs set the threshold.
        groups: name -> edits; a group's recall is the mean over its edits.
        seed: of the draws.
    """
    num_copies = 1 + max(max(group) for group in groups.values())
    pooled, rng = pairs.of(pool), np.random.default_rng(seed)
    order = np.argsort(-pooled.score, kind="stable")  # once: a stable sort of sorted pairs is quick
    pooled = Ranked(*(a[order] for a in (pooled.photo, pooled.copy, pooled.is_same, pooled.score)),
                    pooled.num_photos)  # fmt: skip
    whole = recall_by_copy(pairs, pooled_threshold(pooled), num_copies)
    draws = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, pairs.num_photos, pairs.num_photos)
        weight = np.bincount(drawn, minlength=pairs.num_photos).astype(float)
        threshold = pooled_threshold(pooled, weight)
        draws.append(recall_by_copy(pairs, threshold, num_copies, weight))
    found = {}
    for name, group in groups.items():
        each = np.array([draw[list(group)].mean() for draw in draws])
        low, high = np.quantile(each, [0.025, 0.975])
        found[name] = (float(whole[list(group)].mean()), float(low), float(high))
    return found

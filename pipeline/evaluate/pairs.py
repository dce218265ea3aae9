"""Near-duplicate pairs: the highest recall at a precision.

Source: SPEC D3; paper section 4.1.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import Counts, Statistic


class LabelledPairs(NamedTuple):
    """Pairs of a set's images with judgements.

    Attributes:
        first: int64 (m,), place of the query in the set.
        second: int64 (m,), place of the image that it is compared with.
        is_positive: bool (m,), whether the two are near-duplicates.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    is_positive: NDArray[np.bool_]

    def among(self, rows: NDArray[np.int64]) -> LabelledPairs:
        """The pairs whose images are both among some of the set's, by their places there.

        Args:
            rows: int64 (k,), places in the set, ascending.
        """
        ends = np.stack([self.first, self.second])
        is_whole = np.isin(ends, rows).all(axis=0)
        places = np.searchsorted(rows, ends[:, is_whole])
        return LabelledPairs(places[0], places[1], self.is_positive[is_whole])


class OperatingPoint(NamedTuple):
    """Where recall was read off.

    Attributes:
        recall: share of the positive pairs scored at or above the threshold.
        threshold: that score; infinity when no threshold is precise enough.
    """

    recall: float
    threshold: float


def recall_at_precision(
    scores: NDArray[np.floating],
    is_positive: NDArray[np.bool_],
    precision: float = 0.95,
    weights: NDArray[np.integer] | None = None,
) -> OperatingPoint:
    """The highest recall over all thresholds whose precision is at least ``precision``.

    Pairs of one score are accepted or rejected together.

    Args:
        scores: float (n,), more means more alike; finite.
        is_positive: bool (n,).
        precision: least precision, in (0, 1].
        weights: int (n,), how often each pair counts; None for once.

    Returns:
        recall 0 and threshold infinity when it cannot be reached, or nothing is positive.

    Raises:
        ValueError: scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("pair scores: NaN or infinity, expected finite numbers.")
    times = np.ones(len(scores), np.int64) if weights is None else np.asarray(weights, np.int64)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked = np.asarray(scores, np.float64)[order]
    accepted = np.cumsum(times[order])
    right = np.cumsum(times[order] * is_positive[order])
    is_end = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    usable = np.flatnonzero(is_end & (accepted > 0) & (right > 0))
    usable = usable[right[usable] / accepted[usable] >= precision]
    if len(usable) == 0:
        return OperatingPoint(0.0, float("inf"))
    best = usable[np.argmax(right[usable])]  # of equal recalls the highest threshold
    return OperatingPoint(float(right[best] / right[-1]), float(ranked[best]))


def pair_cosines(vectors: NDArray[np.float32], pairs: LabelledPairs) -> NDArray[np.float64]:
    """Cosine of the two images of each pair, float64 (m,); 0 where a vector is zero.

    Args:
        vectors: float32 (n, d).
        pairs: of the n images.
    """
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return np.asarray((units[pairs.first] * units[pairs.second]).sum(axis=1))


def recall_statistic(
    scores: NDArray[np.floating],
    is_positive: NDArray[np.bool_],
    group: NDArray[np.int64],
    precision: float = 0.95,
) -> Statistic:
    """Recall at a precision as a function of resampled queries.

    Args:
        scores: float (n,).
        is_positive: bool (n,).
        group: int64 (n,), the query of each pair: pairs of one query are drawn together.
        precision: least precision.
    """

    def statistic(counts: Counts) -> NDArray[np.float64]:
        return np.array([recall_at_precision(scores, is_positive, precision, counts[group]).recall])

    return statistic

"""Confidence threshold from a labelled sample.

Source: SPEC S2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.binomial import wilson_lower


@dataclass(frozen=True)
class ThresholdCurve:
    """What each threshold keeps of the sample, thresholds ascending.

    Attributes:
        threshold: float64 (m,), the distinct scores; an annotation is kept at score >= threshold.
        num_kept: int64 (m,).
        num_correct: int64 (m,), of those kept.
        precision: float64 (m,), num_correct / num_kept.
        precision_lower: float64 (m,), one-sided Wilson bound of it.
        recall: float64 (m,), share of the correct ones kept; NaN if none is correct.
        chosen: the lowest threshold whose bound reaches the target, or None.
    """

    threshold: NDArray[np.float64]
    num_kept: NDArray[np.int64]
    num_correct: NDArray[np.int64]
    precision: NDArray[np.float64]
    precision_lower: NDArray[np.float64]
    recall: NDArray[np.float64]
    chosen: float | None


def calibrate_threshold(
    scores: NDArray[np.floating],
    is_correct: NDArray[np.bool_],
    target_precision: float,
    confidence: float,
) -> ThresholdCurve:
    """Lowest threshold at which precision reaches a target, with confidence.

    The bound holds for each threshold by itself: picking the lowest of many makes it a little
    optimistic, the less the larger the sample.

    Args:
        scores: (n,), not NaN.
        is_correct: bool (n,), judged by hand or from another source.
        target_precision: in (0, 1).
        confidence: of the bound, in (0.5, 1).

    Raises:
        ValueError: lengths that differ, NaN, target outside (0, 1).
    """
    value, correct = np.asarray(scores, np.float64), np.asarray(is_correct, bool)
    if value.shape != correct.shape or np.isnan(value).any():
        raise ValueError(
            f"threshold sample: {value.shape} scores ({int(np.isnan(value).sum())} NaN) and "
            f"{correct.shape} judgements, expected as many of both and no NaN."
        )
    if not 0 < target_precision < 1:
        raise ValueError(f"target_precision: found {target_precision}, expected in (0, 1).")
    order = np.argsort(value, kind="stable")
    value, correct = value[order], correct[order]
    first = np.flatnonzero(np.append(True, value[1:] != value[:-1])[: len(value)])
    kept = len(value) - first
    right = correct[::-1].cumsum()[::-1][first]
    lower = wilson_lower(right, kept, confidence)
    reached = np.flatnonzero(lower >= target_precision)
    total = int(correct.sum())
    return ThresholdCurve(
        value[first],
        kept,
        right,
        right / kept,
        lower,
        right / total if total else np.full(len(first), np.nan),
        float(value[first][reached[0]]) if len(reached) else None,
    )

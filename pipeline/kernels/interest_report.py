"""Held-out quality of one interest classifier.

Source: SPEC L4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from pipeline.kernels.calibration import best_f1_threshold, fit_calibration

REPORT_SCHEMA = pa.schema(
    [
        pa.field("l1_interest", pa.string(), nullable=False),
        pa.field("num_seeds", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("threshold", pa.float64()),
        pa.field("precision", pa.float64()),
        pa.field("recall", pa.float64()),
        pa.field("f1", pa.float64()),
        pa.field("average_precision", pa.float64()),
    ]
)
"""One row an interest; figures are null where status is too_few_seeds."""


@dataclass(frozen=True)
class Report:
    """A row of ``REPORT_SCHEMA``; num_seeds is the number of positive seeds."""

    l1_interest: str
    num_seeds: int
    status: str
    threshold: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    average_precision: float | None = None


def held_out_report(
    name: str,
    values: NDArray[np.float64],
    is_positive: NDArray[np.bool_],
    fold: NDArray[np.int32],
    calibration: Literal["platt", "isotonic"],
    threshold: float,
) -> Report:
    """Precision, recall, F1 and average precision on examples nothing was fitted to.

    Each fold is judged with a calibration and a threshold fitted on the other folds.

    Args:
        name: of the interest.
        values: (n,) decision values by classifiers that did not see the example.
        is_positive: (n,), positives in every fold.
        fold: int32 (n,).
        calibration: kind.
        threshold: of the final model, only copied into the row.
    """
    probability = np.empty(len(values))
    predicted = np.empty(len(values), bool)
    for f in range(int(fold.max()) + 1):
        test = fold == f
        others = fit_calibration(calibration, values[~test], is_positive[~test])
        probability[test] = others(values[test])
        cut = best_f1_threshold(others(values[~test]), is_positive[~test])
        predicted[test] = probability[test] >= cut
    hits = int((predicted & is_positive).sum())
    support, fired = int(is_positive.sum()), int(predicted.sum())
    return Report(
        name,
        support,
        "ok",
        threshold,
        precision=hits / max(fired, 1),
        recall=hits / max(support, 1),
        f1=2 * hits / (fired + support),
        average_precision=float(average_precision_score(is_positive, probability)),
    )

"""Held-out quality of interest classifiers.

Source: SPEC L4.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        pa.field("num_groups", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("threshold", pa.float64()),
        pa.field("precision", pa.float64()),
        pa.field("recall", pa.float64()),
        pa.field("f1", pa.float64()),
        pa.field("average_precision", pa.float64()),
    ]
)
"""One row an interest, then their mean; figures are null where status is too_few_seeds."""

TOO_FEW_SEEDS = "too_few_seeds"
OK = "ok"
MACRO = "macro_average"
"""Status of the last row, and its name: the plain mean over the interests that are ok."""


@dataclass(frozen=True)
class Report:
    """A row of ``REPORT_SCHEMA``: positive seeds, and groups of which any is held out whole."""

    l1_interest: str
    num_seeds: int
    num_groups: int
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
    groups: NDArray[np.integer],
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
        groups: (n,), none of which straddles folds.
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
        len(np.unique(groups[is_positive])),
        OK,
        threshold,
        precision=hits / max(fired, 1),
        recall=hits / max(support, 1),
        f1=2 * hits / (fired + support),
        average_precision=float(average_precision_score(is_positive, probability)),
    )


def too_few(name: str, is_positive: NDArray[np.bool_], groups: NDArray[np.integer]) -> Report:
    """Row of an interest that cannot be learned."""
    return Report(name, int(is_positive.sum()), len(np.unique(groups[is_positive])), TOO_FEW_SEEDS)


def report_table(rows: Sequence[Report]) -> pa.Table:
    """The rows and their macro average, whose seeds and groups are sums."""
    good = [vars(row) for row in rows if row.status == OK]
    figures = ("precision", "recall", "f1", "average_precision")
    means = {k: float(np.mean([row[k] for row in good])) if good else None for k in figures}
    seeds, groups = (sum(getattr(r, k) for r in rows) for k in ("num_seeds", "num_groups"))
    macro = Report(MACRO, seeds, groups, MACRO, **means)
    return pa.Table.from_pylist([vars(row) for row in (*rows, macro)], schema=REPORT_SCHEMA)

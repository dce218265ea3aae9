"""Probability calibration and choice of a threshold, as plain arrays.

Source: Platt 1999 (sigmoid with smoothed targets); Zadrozny, Elkan 2002 (isotonic).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression


@dataclass(frozen=True)
class Calibration:
    """Monotone map from a decision value to a probability.

    Attributes:
        kind: "platt": sigmoid(slope * value + offset), points = (slope, offset) in ``x``;
            "isotonic": linear between the points (x, y), constant outside.
        x: float64.
        y: float64; empty for "platt".
    """

    kind: Literal["platt", "isotonic"]
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities in [0, 1] of decision values, same shape."""
        if self.kind == "platt":
            return np.asarray(expit(self.x[0] * np.asarray(values, np.float64) + self.x[1]))
        return np.asarray(np.interp(values, self.x, self.y))


def fit_calibration(
    kind: Literal["platt", "isotonic"],
    values: NDArray[np.floating],
    is_positive: NDArray[np.bool_],
) -> Calibration:
    """Fit on decision values of examples that the classifier was not trained on.

    Args:
        kind: see `Calibration`.
        values: (n,) decision values, higher for positives.
        is_positive: (n,), with both kinds present.
    """
    value = np.asarray(values, np.float64)
    if kind == "isotonic":
        iso = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(value, is_positive)
        return Calibration(kind, iso.X_thresholds_, iso.y_thresholds_)
    return Calibration(kind, _platt(value, is_positive), np.zeros(0))


def best_f1_threshold(probabilities: NDArray[np.floating], is_positive: NDArray[np.bool_]) -> float:
    """Threshold with the highest F1 of ``probability >= threshold``; the highest one at ties.

    It lies half way to the next lower probability, so that it does not hang on one example.

    Args:
        probabilities: (n,), n >= 1.
        is_positive: (n,).

    Returns:
        Threshold in [0, 1].
    """
    order = np.argsort(-probabilities, kind="stable")
    p, hit = probabilities[order], is_positive[order]
    last = np.append(p[1:] != p[:-1], True)  # equal probabilities are taken together
    true = np.cumsum(hit)[last]
    taken = np.flatnonzero(last) + 1
    f1 = 2 * true / (taken + is_positive.sum())
    best = int(np.argmax(f1))
    levels = p[last]
    below = levels[best + 1] if best + 1 < len(levels) else 0.0
    middle = float(levels[best] + below) / 2
    return middle if below < middle else float(levels[best])


def _platt(values: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Slope (>= 0) and offset of the sigmoid, on standardised values for the optimiser's sake."""
    positives = int(is_positive.sum())
    negatives = len(values) - positives
    target = np.where(is_positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean, scale = values.mean(), values.std() or 1.0
    z = (values - mean) / scale

    def loss(ab: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = ab[0] * z + ab[1]
        error = expit(logit) - target
        return float(np.sum(np.logaddexp(0, logit) - target * logit)), np.array(
            [error @ z, error.sum()]
        )

    start = np.array([1.0, np.log((positives + 1) / (negatives + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    slope, offset = found.x
    return np.array([slope / scale, offset - slope * mean / scale])


def threshold_at_precision(
    scores: NDArray[np.floating], is_same: NDArray[np.bool_], precision: float
) -> float | None:
    """Lowest score whose pairs at or above it are right with the stated precision.

    Args:
        scores: (n,), of the candidates.
        is_same: (n,).
        precision: in (0, 1].

    Returns:
        One of the scores; None where no threshold reaches the precision.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    right = np.cumsum(is_same[order])
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]  # ties go together
    good = np.flatnonzero(last & (right >= precision * np.arange(1, len(ordered) + 1)))
    return float(ordered[good[-1]]) if len(good) else None

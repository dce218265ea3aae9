"""Uncertainty of a share that was counted: standard error and Wilson bound."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def standard_error(successes: ArrayLike, trials: ArrayLike) -> NDArray[np.float64]:
    """Standard error sqrt(p (1 - p) / n) of the share successes / trials; NaN for no trials."""
    n = np.asarray(trials, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.asarray(successes, np.float64) / n
        return np.asarray(np.sqrt(p * (1 - p) / n))


def wilson_lower(successes: ArrayLike, trials: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """One-sided Wilson lower bound of a share.

    Args:
        successes: counts, any shape.
        trials: counts of the same shape, >= successes.
        confidence: probability that the true share is not below the bound, in (0.5, 1).

    Returns:
        float64 of the same shape, in [0, 1]; 0 where there are no trials.

    Raises:
        ValueError: confidence outside (0.5, 1).

    Source: Wilson 1927, the score interval.
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence: found {confidence}, expected a number in (0.5, 1).")
    z2 = NormalDist().inv_cdf(confidence) ** 2
    n = np.asarray(trials, np.float64)
    safe = np.maximum(n, 1)
    p = np.asarray(successes, np.float64) / safe
    centre = p + z2 / (2 * safe)
    spread = np.sqrt(z2 * (p * (1 - p) / safe + z2 / (4 * safe * safe)))
    lower = np.maximum((centre - spread) / (1 + z2 / safe), 0.0)
    return np.asarray(np.where(n > 0, lower, 0.0))

"""Linear probe: multinomial logistic regression on frozen features, fitted by scikit-learn.

Source: the usual protocol (Radford et al. 2021, A.3): L-BFGS, penalty chosen on held-apart images.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from pipeline.kernels.hashing import hash64, uniform

SELECTION_SHARE = 0.2
"""Part of the training images that choose the penalty."""
_STD_FLOOR = 1e-5


def linear_probe(
    features: NDArray[np.floating],
    classes: NDArray[np.int64],
    ids: Sequence[str],
    queries: NDArray[np.floating],
    inverse_penalties: Sequence[float],
    max_iterations: int,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Class of each query.

    A fifth of the training images, by hash of their ids, chooses the penalty; the probe is then
    fitted to all of them.

    Args:
        features: float (n, d).
        classes: int64 (n,), at least two different ones.
        ids: n ids.
        queries: float (q, d).
        inverse_penalties: scikit-learn's C, tried in order; the first of equals is taken.
        max_iterations: of L-BFGS.
        seed: of the choice of the fifth.

    Returns:
        int64 (q,).

    Raises:
        ValueError: fewer than two classes.
    """
    if len(np.unique(classes)) < 2:
        raise ValueError("linear probe: fewer than two classes to tell apart.")
    x = np.asarray(features, np.float64)
    centre, scale = x.mean(axis=0), x.std(axis=0) + _STD_FLOOR
    x, q = (x - centre) / scale, (np.asarray(queries, np.float64) - centre) / scale
    apart = uniform(hash64(ids, seed, "linear-probe")) < SELECTION_SHARE
    best = inverse_penalties[0]
    if len(inverse_penalties) > 1 and apart.any() and len(np.unique(classes[~apart])) > 1:
        right = [
            int((_fit(x[~apart], classes[~apart], c, max_iterations).predict(x[apart])
                 == classes[apart]).sum())
            for c in inverse_penalties
        ]  # fmt: skip
        best = inverse_penalties[int(np.argmax(right))]
    return np.asarray(_fit(x, classes, best, max_iterations).predict(q), np.int64)


def _fit(
    x: NDArray[np.float64], classes: NDArray[np.int64], c: float, max_iterations: int
) -> LogisticRegression:
    model = LogisticRegression(C=c, max_iter=max_iterations)
    with warnings.catch_warnings():
        # The number of iterations is part of the protocol, not an accident.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, classes)

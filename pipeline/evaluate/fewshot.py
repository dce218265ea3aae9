"""Few-shot probe in closed form: ridge regression onto targets of +-1 from whitened features.

Source: SPEC D5, D15; google-research/big_vision evaluators/fewshot_lsr.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash64

BIAS = 100.0
"""Constant feature in place of an intercept: at this size the penalty on its weight is nothing."""
_STD_FLOOR = 1e-5
"""Added to standard deviations (big_vision)."""

Features = NDArray[np.floating]
Classes = NDArray[np.int64]


def nested_support(
    ids: Sequence[str], classes: Classes, shots: Sequence[int], seed: int
) -> list[NDArray[np.int64]]:
    """Rows of the support set for each number of shots; a smaller set is inside a larger one.

    Args:
        ids: n ids, which with the seed decide the choice, whatever the order of the rows.
        classes: int64 (n,).
        shots: images a class; a class that has fewer gives all it has.
        seed: of the choice.

    Returns:
        int64 arrays, ascending.
    """
    order = np.lexsort((np.asarray(ids, dtype=np.str_), hash64(ids, seed, "few-shot"), classes))
    starts = np.searchsorted(classes[order], classes[order], side="left")
    rank = np.arange(len(order)) - starts
    return [np.sort(order[rank < number]) for number in shots]


def ridge_probe(
    support: Features, classes: Classes, queries: Features, num_classes: int, l2: Sequence[float]
) -> NDArray[np.int64]:
    """Class of each query for each penalty.

    Features are centred and divided by the support's mean and standard deviation, a constant is
    added, and W minimises |X W - Y|^2 + l2 |W|^2 with Y = +1 at the class and -1 elsewhere. One
    eigendecomposition, of X^T X or of X X^T, whichever is smaller, serves all penalties.

    Args:
        support: float (n, d).
        classes: int64 (n,), 0 <= class < num_classes.
        queries: float (q, d).
        num_classes: width of the targets.
        l2: penalties, > 0.

    Returns:
        int64 (len(l2), q); the least class of equal scores.

    Raises:
        ValueError: no support, or a penalty that is not positive.
    """
    if len(support) == 0 or min(l2, default=0.0) <= 0:
        raise ValueError(
            f"ridge probe: {len(support)} support images, penalties {list(l2)}; expected at least "
            f"one image and penalties above 0."
        )
    x = np.asarray(support, np.float64)
    centre, scale = x.mean(axis=0), x.std(axis=0) + _STD_FLOOR
    x, q = (_with_bias((np.asarray(side, np.float64) - centre) / scale) for side in (x, queries))
    y = np.full((len(x), num_classes), -1.0)
    y[np.arange(len(x)), classes] = 1.0
    is_wide = len(x) < x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    left = (q @ x.T if is_wide else q) @ vectors
    right = vectors.T @ (y if is_wide else x.T @ y)
    # Rounding makes eigenvalues of a rank-deficient Gram matrix slightly negative.
    values = np.maximum(values, 0.0)[:, None]
    return np.stack([np.argmax(left @ (right / (values + penalty)), axis=1) for penalty in l2])


def _with_bias(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([x, np.full((len(x), 1), BIAS)], axis=1)


def fewshot_hits(
    support: tuple[Features, Classes, Sequence[str]],
    queries: tuple[Features, Classes],
    shots: Sequence[int],
    l2: Sequence[float],
    seeds: Sequence[int],
) -> NDArray[np.bool_]:
    """Whether each query is classified rightly, for all shots, seeds and penalties.

    Args:
        support: features (n, d), classes (n,) and ids of the pool that support sets come from.
        queries: features (q, d) and classes (q,).
        shots: images a class.
        l2: penalties.
        seeds: of the support sets.

    Returns:
        bool (len(shots), len(l2), len(seeds), q).
    """
    features, classes, ids = support
    num_classes = int(max(classes.max(initial=0), queries[1].max(initial=0))) + 1
    hits = np.empty((len(shots), len(l2), len(seeds), len(queries[1])), np.bool_)
    for s, seed in enumerate(seeds):
        for i, rows in enumerate(nested_support(ids, classes, shots, seed)):
            found = ridge_probe(features[rows], classes[rows], queries[0], num_classes, l2)
            hits[i, :, s] = found == queries[1]
    return hits


def choose_penalty(hits: NDArray[np.bool_], is_selecting: NDArray[np.bool_]) -> int:
    """The penalty that is best over all shots and seeds on the selecting queries, one for all.

    Args:
        hits: from ``fewshot_hits``.
        is_selecting: bool (q,), queries that choose and are not scored.

    Returns:
        its place, the first of equals.
    """
    return int(np.argmax(hits[..., is_selecting].sum(axis=(0, 2, 3))))

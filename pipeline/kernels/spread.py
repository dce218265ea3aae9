"""How far a cluster reaches, and how many labels a distribution is worth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def least_alike(
    vectors: NDArray[np.float32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two members of each cluster whose cosine is least.

    Args:
        vectors: unit float32 (n, d), members of one cluster one after the other.
        offsets: int64 (c + 1,), members of cluster i are ``offsets[i]:offsets[i + 1]``.

    Returns:
        rows of the one and of the other, int64 (c,), the first of equals, -1 for a cluster of fewer
        than two members; and their cosine, float32 (c,), NaN there.

    Cost: the square of each cluster's size.
    """
    num = len(offsets) - 1
    first, second = np.full(num, -1, np.int64), np.full(num, -1, np.int64)
    cosine = np.full(num, np.nan, np.float32)
    for i, (start, stop) in enumerate(pairwise(offsets.tolist())):
        if stop - start < 2:
            continue
        part = vectors[start:stop]
        a, b = np.triu_indices(len(part), 1)
        cosines = (part @ part.T)[a, b]
        least = int(np.argmin(cosines))
        first[i], second[i] = start + a[least], start + b[least]
        cosine[i] = cosines[least]
    return first, second, cosine


def effective_number(sizes: NDArray[np.number]) -> float:
    """How many labels of equal size have the same entropy: Hill's number of order one.

    Args:
        sizes: of shape (n,), >= 0; 0 counts for nothing.

    Returns:
        from 1 for one label to n for equal ones; 0 where all is 0.

    Source: Hill 1973, Diversity and evenness, order 1.
    """
    total = float(sizes.sum())
    if total == 0:
        return 0.0
    shares = np.asarray(sizes, np.float64)[sizes > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))

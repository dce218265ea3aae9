"""What goes into the interest classifiers: features of images, folds of seeds.

Source: SPEC L2, L3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash_ints


def image_features(
    text_embeddings: NDArray[np.floating],
    num_interests: int,
    interactions: NDArray[np.integer] | None = None,
    is_given: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Features of images (L3): text embedding | log(1 + interactions) | whether they were given.

    Args:
        text_embeddings: (n, d), of title, description and tags.
        num_interests: L.
        interactions: (n, L) counts >= 0 of user interactions per interest, or None.
        is_given: bool (n,), images whose counts are known; all of them if None.

    Returns:
        float32 (n, d + L + 1); counts of images without any are zero, as is their flag.

    Raises:
        ValueError: shapes that do not fit, negative counts.
    """
    n = len(text_embeddings)
    extra = np.zeros((n, num_interests + 1), np.float32)
    if interactions is not None:
        given = np.ones(n, bool) if is_given is None else np.asarray(is_given, bool)
        if interactions.shape != (n, num_interests) or given.shape != (n,):
            raise ValueError(
                f"interactions: shapes {interactions.shape} and {given.shape}, expected "
                f"{(n, num_interests)} and {(n,)}."
            )
        if (interactions[given] < 0).any():
            raise ValueError("interactions: negative counts, expected >= 0.")
        extra[given, :num_interests] = np.log1p(interactions[given])
        extra[given, num_interests] = 1.0
    return np.concatenate([np.asarray(text_embeddings, np.float32), extra], axis=1)


def assign_folds(
    groups: NDArray[np.integer], is_positive: NDArray[np.bool_], num_folds: int, seed: int
) -> NDArray[np.int32] | None:
    """Fold of each example: groups stay whole, groups with positives are dealt evenly.

    Args:
        groups: (n,).
        is_positive: (n,).
        num_folds: wanted; at most the number of groups with positives, and of those without.
        seed: of the deal.

    Returns:
        int32 (n,), or None if there are fewer than two groups of either kind.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    positive = np.zeros(len(names), bool)
    positive[inverse[is_positive]] = True
    folds = min(num_folds, int(positive.sum()), int((~positive).sum()))
    if folds < 2:
        return None
    fold = np.empty(len(names), np.int32)
    order = np.argsort(hash_ints(names, seed, "interests.folds"), kind="stable")
    for kind in (True, False):
        mine = order[positive[order] == kind]
        fold[mine] = np.arange(len(mine)) % folds
    return fold[inverse]

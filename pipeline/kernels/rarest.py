"""The rarest label of each image: what an image is resampled by, and how many images share it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LABEL_BITS = 27
"""Label ids are below 2**27, so that count and id fit one signed 64-bit number."""


def rarest_labels(
    offsets: NDArray[np.int64], label_ids: NDArray[np.integer], label_counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Label with the fewest images of each image, the lower id on a tie.

    Args:
        offsets: int64 (n + 1,), from 0, into ``label_ids``.
        label_ids: flat, below 2**27.
        label_counts: int64 (L,), images with each label, below 2**36.

    Returns:
        int64 (n,); -1 for an image without labels.
    """
    result = np.full(len(offsets) - 1, -1, np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        ids = np.asarray(label_ids, np.int64)
        codes = (label_counts[ids] << _LABEL_BITS) | ids
        least = np.minimum.reduceat(codes, offsets[filled])
        result[filled] = least & ((1 << _LABEL_BITS) - 1)
    return result

"""Which images of a release are kept from training: a pure function of their keys."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash64, uniform

_SEED = 0
"""Not the run's: runs with other seeds must be scored on the same images."""


def image_part(key: str) -> str:
    """The part of a sample's key that names the image, the same for all its copies."""
    return key.rpartition("-")[0] or key


def is_held_out(keys: pa.Array | Iterable[str], share: float) -> NDArray[np.bool_]:
    """Whether each sample's image is held out.

    A release holds one image of each group of near-duplicates, so no look-alike of a held-out image
    is trained on; its own copies have keys of one image part and are held out with it. A larger
    share holds out a superset.

    Args:
        keys: n sample keys, ``<image>-<copy>``.
        share: of the images.

    Returns:
        bool (n,).
    """
    names = keys.to_pylist() if isinstance(keys, pa.Array) else list(keys)
    if share == 0:
        return np.zeros(len(names), np.bool_)
    parts = pa.array([image_part(name) for name in names], pa.string())
    return np.asarray(uniform(hash64(parts, _SEED, "holdout")) < share)

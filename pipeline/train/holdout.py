"""Which images of a release are kept from training: a pure function of their keys."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.train import DataParams
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
    parts = _image_parts(keys)
    if share == 0:
        return np.zeros(len(parts), np.bool_)
    return np.asarray(uniform(hash64(parts, _SEED, "holdout")) < share)


def is_trained_on(keys: pa.Array | Iterable[str], data: DataParams) -> NDArray[np.bool_]:
    """Whether training shows each sample's image: not held out, and in the subset.

    Args:
        keys: n sample keys, ``<image>-<copy>``.
        data: ``holdout_share`` and ``subset_share``.

    Returns:
        bool (n,).
    """
    keys = keys if isinstance(keys, pa.Array) else list(keys)
    is_shown = ~is_held_out(keys, data.holdout_share)
    if data.subset_share < 1:
        is_shown &= uniform(hash64(_image_parts(keys), _SEED, "subset")) < data.subset_share
    return is_shown


def _image_parts(keys: pa.Array | Iterable[str]) -> pa.Array:
    names = keys.to_pylist() if isinstance(keys, pa.Array) else keys
    return pa.array([image_part(name) for name in names], pa.string())

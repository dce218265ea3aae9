"""Nested annotations: one list of (term_id, score) an image."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_nested(
    row: NDArray[np.integer],
    term_id: NDArray[np.integer],
    score: NDArray[np.floating],
    num_rows: int,
) -> pa.ListArray:
    """Annotations as one list an image.

    Args:
        row, term_id, score: shape (n,), ascending by (row, term_id), no repeats.
        num_rows: images; rows without annotations get an empty list.

    Returns:
        list<struct<term_id: int32, score: float>> of length num_rows.
    """
    offsets = np.r_[0, np.cumsum(np.bincount(row, minlength=num_rows))].astype(np.int32)
    items = pa.StructArray.from_arrays(
        [pa.array(term_id, pa.int32()), pa.array(np.asarray(score, np.float32), pa.float32())],
        fields=[pa.field("term_id", pa.int32()), pa.field("score", pa.float32())],
    )
    return pa.ListArray.from_arrays(pa.array(offsets), items)

"""Lining up tables of one bucket by key."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def positions_of(
    wanted: pa.Array | pa.ChunkedArray, keys: pa.Array | pa.ChunkedArray
) -> NDArray[np.int64]:
    """Row of each wanted key.

    Args:
        wanted: n keys.
        keys: distinct keys, of the same type.

    Returns:
        int64 of shape (n,): row in ``keys``, -1 where it is not there.
    """
    wanted, keys = _one_chunk(wanted), _one_chunk(keys)
    if wanted.null_count == 0 and wanted.equals(keys):  # the usual case of aligned tables
        return np.arange(len(keys))
    found = pc.index_in(wanted, value_set=keys)
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def take_or_null(column: pa.Array | pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.Array:
    """Values at rows; null where the row is -1."""
    values = _one_chunk(column)
    if np.array_equal(rows, np.arange(len(values))):
        return values
    return values.take(pa.array(rows, pa.int64(), mask=rows < 0))


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)

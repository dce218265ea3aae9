"""Vectors between Arrow columns of little-endian bytes and (n, d) matrices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

_PRODUCTS = 1 << 21
"""Elements multiplied at once: 16 MiB of float64."""


def to_matrix(column: pa.Array | pa.ChunkedArray, dtype: str = "<f4") -> NDArray[np.float32]:
    """View or convert a vector column as a matrix.

    Args:
        column: fixed-size binary (read without a copy), binary, or list of floats; no nulls, all
            rows of one length.
        dtype: little-endian element type of binary columns, ``<f4`` or ``<f2``.

    Returns:
        float32 of shape (n, d).

    Raises:
        ValueError: nulls, or rows of different length.
    """
    array = _one_chunk(column)
    if array.null_count:
        raise ValueError(f"vector column: {array.null_count} null rows, expected none.")
    if len(array) == 0:
        width = array.type.byte_width // np.dtype(dtype).itemsize if _is_fixed(array.type) else 0
        return np.zeros((0, width), np.float32)
    if _is_fixed(array.type):
        width = array.type.byte_width
        start = array.offset * width
        raw = np.frombuffer(array.buffers()[1], np.uint8)[start : start + len(array) * width]
        values = raw.view(dtype)
    elif pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        values = _ragged_bytes(array, dtype)
    else:
        if len(set(array.value_lengths().to_pylist())) != 1:
            raise ValueError("vector column: rows of different length, expected one length.")
        values = array.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values.reshape(len(array), -1), dtype=np.float32)


def from_matrix(matrix: NDArray[np.floating], dtype: str = "<f4") -> pa.FixedSizeBinaryArray:
    """Matrix of shape (n, d) as a fixed-size binary column, one row a vector."""
    data = np.ascontiguousarray(matrix, dtype=dtype)
    width = data.shape[1] * data.dtype.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(data), [None, pa.py_buffer(data.tobytes())]
    )


def l2_normalise(matrix: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to unit length; zero rows stay zero. Each row depends on itself only."""
    every = np.arange(len(matrix))
    norms = np.sqrt(row_products(matrix, matrix, every, every))
    norms[norms == 0] = 1.0
    return np.asarray(matrix / norms[:, None], dtype=np.float32)


def row_products(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    rows_a: NDArray[np.int64],
    rows_b: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Dot products of chosen rows, in float64: each depends on its two rows only.

    Products of whole matrices round differently by shape and processor; what decides near a limit
    is computed here, so that every stage decides alike.

    Args:
        a: float32 (n, d).
        b: float32 (m, d).
        rows_a: int64 (k,), rows of ``a``.
        rows_b: int64 (k,), rows of ``b``.

    Returns:
        float64 (k,).
    """
    out = np.empty(len(rows_a))
    step = max(1, _PRODUCTS // max(1, a.shape[1]))
    for at in range(0, len(rows_a), step):
        part = slice(at, at + step)
        product = a[rows_a[part]].astype(np.float64)
        product *= b[rows_b[part]]
        out[part] = product.sum(axis=1)
    return out


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind))


def _ragged_bytes(array: pa.Array, dtype: str) -> NDArray[np.floating]:
    lengths = set(pa.compute.binary_length(array).to_pylist())
    if len(lengths) != 1:
        raise ValueError(
            f"vector column: rows of {sorted(lengths)[:5]} bytes, expected one length."
        )
    width = lengths.pop()
    offset_type = np.int64 if pa.types.is_large_binary(array.type) else np.int32
    offsets = np.frombuffer(array.buffers()[1], offset_type)
    start = int(offsets[array.offset])
    raw = np.frombuffer(array.buffers()[2], np.uint8)[start : start + width * len(array)]
    return raw.view(dtype)


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        chunks = column.combine_chunks()
        return chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks)
    return column

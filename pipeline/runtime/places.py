"""Where the values of a stored column stand in a Parquet part, so that one can be read alone.

The writer puts the values of such a column into one plain, uncompressed page a row group: before
each value four bytes of its length, after the last nothing. So the end of the column's chunk and
the sizes tell every place, and nothing but footers and sizes is read to find them.

Source: Parquet format, "Plain (PLAIN = 0)", BYTE_ARRAY.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_LENGTH = 4
"""Bytes before each value."""
_MAX_HEAD = 1 << 16
"""What may stand before the values: the page's header and its definition levels."""


def locate_stored(
    handle: IO[bytes], name: str, columns: Sequence[str], stored: str, sizes: str
) -> Iterator[pa.RecordBatch]:
    """Rows of a part with the place of their stored value.

    Args:
        handle: the part.
        name: of the part, for the result and for errors.
        columns: columns that are read.
        stored: the stored column, which is not read.
        sizes: column of the sizes of its values in bytes, null where the value is null.

    Yields:
        a batch a row group: ``columns``, ``part`` string and ``offset`` int64 of the value's first
        byte in it, both null where the value is.

    Raises:
        ValueError: the column is not stored as the writer stores it.
    """
    parquet = pq.ParquetFile(handle)
    paths = [parquet.schema.column(at).path for at in range(len(parquet.schema))]
    for group in range(parquet.num_row_groups):
        rows = parquet.read_row_group(group, columns=[*columns, sizes])
        chunk = parquet.metadata.row_group(group).column(paths.index(stored))
        end = chunk.data_page_offset + chunk.total_compressed_size
        is_there = rows[sizes].is_valid().to_numpy()
        spans = np.where(is_there, rows[sizes].fill_null(0).to_numpy() + _LENGTH, 0)
        head = chunk.total_compressed_size - int(spans.sum())
        is_plain = chunk.compression == "UNCOMPRESSED" and set(chunk.encodings) <= {"PLAIN", "RLE"}
        if not is_plain or not 0 <= head <= _MAX_HEAD:
            raise ValueError(
                f"{name}: column {stored} of row group {group} is {chunk.compression} "
                f"{'+'.join(chunk.encodings)} with {head} bytes before its values, expected one "
                "plain page. Was the part written by another program? Ingest its table again."
            )
        offsets = end - _suffix_sums(spans) + _LENGTH
        names = pa.array(np.full(len(rows), name), mask=~is_there)
        found = rows.select(list(columns)).append_column("part", names)
        places = pa.array(offsets, mask=~is_there)
        yield from found.append_column("offset", places).combine_chunks().to_batches()


def _suffix_sums(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(spans[::-1])[::-1]

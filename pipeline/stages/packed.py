"""Shuffles of packed columns: one Spark row a batch and route, in place of one a record.

Spark moves a record of two columns as a row of its own, which costs a microsecond on each side
and 16 bytes more than the record has. Here a task sorts its records by route and packs those of
one route into one Arrow stream; Spark shuffles these blocks, and copies bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

PACKED_DDL = "route int, kind int, block binary"
"""Rows of a packed frame: where a block goes, what it holds, its records as an Arrow stream."""
_PACKED = pa.schema([("route", pa.int32()), ("kind", pa.int32()), ("block", pa.binary())])


def pack(
    rows: pa.RecordBatch, routes: NDArray[np.integer], *, first_route: int = 0, kind: int = 0
) -> pa.RecordBatch:
    """Blocks of the rows, one for each route that has any; rows keep their order within it.

    Args:
        rows: n records.
        routes: integers (n,), from 0.
        first_route: added to all of them.
        kind: of the blocks; a task gets its blocks ordered by it.

    Returns:
        columns of ``PACKED_DDL``, routes ascending.
    """
    counts = np.bincount(routes)
    narrow = np.uint16 if len(counts) <= 1 << 16 else np.uint32  # 16 bits are sorted by counting
    moved = rows.take(pa.array(np.argsort(routes.astype(narrow), kind="stable")))
    present = np.flatnonzero(counts)
    columns = [
        pa.array((present + first_route).astype(np.int32)),
        pa.array(np.full(len(present), kind, np.int32)),
        _streams(moved, np.r_[0, np.cumsum(counts[present])]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_PACKED)


def unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, int, pa.Table]]:
    """(route, kind, records) of every block, in the order of the rows."""
    for batch in batches:
        routes, kinds = (batch.column(at).to_pylist() for at in (0, 1))
        for route, kind, block in zip(routes, kinds, batch.column(2), strict=True):
            yield route, kind, pa.ipc.open_stream(block.as_buffer()).read_all()


def shuffle_packed(blocks: DataFrame, num_routes: int) -> DataFrame:
    """Bring the blocks of a route to one task, ordered by route and kind.

    Args:
        blocks: ``PACKED_DDL``.
        num_routes: tasks; a route is its task's number.
    """
    return blocks.repartitionById(num_routes, F.col("route")).sortWithinPartitions("route", "kind")


def in_blocks(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches joined to at least ``num_rows`` rows, but for the last; none for no rows."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            held.append(batch)
        if sum(part.num_rows for part in held) >= num_rows:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def _streams(rows: pa.RecordBatch, bounds: NDArray[np.integer]) -> pa.Array:
    """Rows bounds[i] to bounds[i + 1] as an Arrow stream each: binary, all in one buffer."""
    sink = pa.BufferOutputStream()
    offsets = np.zeros(len(bounds), np.int32)
    edges = bounds.tolist()
    for at, (start, stop) in enumerate(pairwise(edges), 1):
        with pa.ipc.new_stream(sink, rows.schema) as out:
            out.write_batch(rows.slice(start, stop - start))
        offsets[at] = sink.tell()
    buffers = [None, pa.py_buffer(offsets), sink.getvalue()]
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers)

"""Two versions of one bucket of a table, compared row by row in one pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runtime.reader import first_after
from pipeline.stages.earlier import CHANGE, GONE, NEW, SAME


def row_changes(
    now: Iterator[pa.RecordBatch], then: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Mark the rows of both versions.

    Args:
        now: batches of one set of columns; the first is a unique key, ascending over all batches.
        then: the same of the earlier version.

    Yields:
        rows with int8 ``change``: every row of ``now``, ``SAME`` where a row of ``then`` has the
        same values (a null equals nothing), else ``NEW``; and the other rows of ``then`` as
        ``GONE``. Keys of a batch lie after those of the batches before.
    """
    rest = _Rows(then)
    for batch in now:
        if batch.num_rows:
            rows = _plain(batch)
            yield from _compared(rows, rest.up_to(rows.column(0)[-1].as_py()))
    for rows in rest.all():
        yield from _marked(rows, np.full(rows.num_rows, GONE))


class _Rows:
    """A stream of sorted rows, taken in pieces by key."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = (_plain(batch) for batch in batches if batch.num_rows)
        self._held: list[pa.Table] = []

    def up_to(self, key: object) -> pa.Table | None:
        """Rows not taken yet whose key is not after this one; None for none."""
        while not self._held or self._held[-1].column(0)[-1].as_py() <= key:
            following = next(self._batches, None)
            if following is None:
                break
            self._held.append(following)
        if not self._held:
            return None
        rows = pa.concat_tables(self._held)
        cut = first_after(rows.column(0), key, 0)
        self._held = [rows.slice(cut)] if cut < rows.num_rows else []
        return rows.slice(0, cut)

    def all(self) -> Iterator[pa.Table]:
        """What is left."""
        yield from self._held
        yield from self._batches


def _compared(rows: pa.Table, others: pa.Table | None) -> Iterator[pa.RecordBatch]:
    if others is None or not others.num_rows:
        yield from _marked(rows, np.full(rows.num_rows, NEW))
        return
    key = rows.column_names[0]
    at = pc.index_in(rows[key], value_set=others[key].combine_chunks())
    twins = others.take(at)
    is_same = np.ones(rows.num_rows, np.bool_)
    for name in rows.column_names:
        equal = pc.equal(rows[name], twins[name]).fill_null(False)
        is_same &= equal.to_numpy()
    yield from _marked(rows, np.where(is_same, SAME, NEW))
    is_left = np.ones(others.num_rows, np.bool_)
    is_left[at.to_numpy()[is_same].astype(np.int64)] = False
    if is_left.any():
        left = others.filter(pa.array(is_left))
        yield from _marked(left, np.full(left.num_rows, GONE))


def _marked(rows: pa.Table, change: np.ndarray) -> Iterator[pa.RecordBatch]:
    marked = rows.append_column(CHANGE, pa.array(change.astype(np.int8)))
    yield from marked.combine_chunks().to_batches()


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """The batch with vectors as plain binary, which two versions may have stored differently."""
    rows = pa.Table.from_batches([batch])
    for at, field in enumerate(rows.schema):
        if pa.types.is_fixed_size_binary(field.type):
            rows = rows.set_column(at, field.name, rows.column(at).cast(pa.binary()))
    return rows

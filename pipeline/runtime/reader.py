"""Reading published tables with pyarrow: whole, or one bucket in slices aligned by key."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files.storage import Storage
from pipeline.runtime.manifest import TableManifest
from schemas.contract import Table

MAX_SMALL_TABLES = 4
_SMALL: dict[str, pa.Table] = {}
"""Small tables by their folder, in this process."""

SLICE_BYTES = 256 << 20
"""A slice of a table is cut at this size too, so that rows with image bytes stay in memory."""


def read_table(
    storage: Storage, manifest: TableManifest, contract: Table, columns: list[str] | None = None
) -> pa.Table:
    """A whole table, buckets in order; for small ones, and for reports.

    Returns:
        rows in the order of the files: inside a bucket by key.
    """
    parts = [
        read_part(storage, f"{manifest.path}/{f.name}", columns)
        for f in manifest.files
        if f.num_rows
    ]
    if not parts:
        empty = contract.empty()
        return empty.select(columns) if columns else empty
    return pa.concat_tables(parts, promote_options="permissive")


@dataclass(frozen=True)
class PublishedTable:
    """A small published table that tasks read for themselves; see ``SmallTable``.

    Attributes:
        storage: root.
        manifest: of the table.
        contract: of the table.
    """

    storage: Storage
    manifest: TableManifest
    contract: Table

    def read(self) -> pa.Table:
        """All rows by key; the last few tables stay in memory."""
        key = f"{self.storage.uri}/{self.manifest.path}"
        if key not in _SMALL:
            if len(_SMALL) >= MAX_SMALL_TABLES:
                _SMALL.pop(next(iter(_SMALL)))
            rows = read_table(self.storage, self.manifest, self.contract)
            _SMALL[key] = rows.sort_by([(k, "ascending") for k in self.contract.key])
        return _SMALL[key]


def read_part(storage: Storage, path: str, columns: list[str] | None = None) -> pa.Table:
    """One file."""
    with storage.open_read(path) as handle:
        return pq.ParquetFile(handle).read(columns=columns)


def bucket_path(manifest: TableManifest, bucket: int) -> str | None:
    """File of a bucket; None when the bucket holds no row."""
    for file in manifest.files:
        if file.bucket == bucket:
            return f"{manifest.path}/{file.name}" if file.num_rows else None
    return None


def aligned_slices(
    storage: Storage,
    manifests: Mapping[str, TableManifest | None],
    contracts: Mapping[str, Table],
    bucket: int,
    batch_rows: int,
    columns: Mapping[str, tuple[str, ...]],
    whole_keys: bool = False,
) -> Iterator[dict[str, pa.Table | None]]:
    """Walk one bucket of several aligned tables together.

    The first table is streamed in slices; of each other table a slice holds the rows whose key
    lies after the previous slice's last key and up to this one's, so that every row is seen once.
    Rows of the others beyond the first table's last key come with the last slice.

    Args:
        storage: root.
        manifests: table -> manifest, None for an absent optional table; the first is the primary.
        contracts: of the same tables.
        bucket: which.
        batch_rows: most rows of the primary in a slice.
        columns: columns to read, by table, or parts of nested ones by their path in the file; all
            where not named.
        whole_keys: cut only where the primary's key changes.

    Yields:
        table -> rows, None for an absent table.
    """
    names = list(manifests)
    others = {
        name: _whole_bucket(storage, manifests[name], contracts[name], bucket, columns.get(name))
        for name in names[1:]
    }
    starts = dict.fromkeys(names[1:], 0)
    key = contracts[names[0]].key[0]
    first = manifests[names[0]]
    assert first is not None, f"{names[0]}: the first aligned table is not optional"
    slices = _slices(storage, first, contracts[names[0]], bucket, batch_rows, columns.get(names[0]))
    for rows, is_last in _whole(slices, key) if whole_keys else slices:
        result: dict[str, pa.Table | None] = {names[0]: rows}
        for name, other in others.items():
            if other is None:
                result[name] = None
                continue
            stop = other.num_rows
            if not is_last:
                last = rows.column(key)[-1].as_py()
                keys = other.column(contracts[name].key[0])
                stop = first_after(keys, last, starts[name])
            result[name] = other.slice(starts[name], stop - starts[name])
            starts[name] = stop
        yield result


def _whole(slices: Iterator[tuple[pa.Table, bool]], key: str) -> Iterator[tuple[pa.Table, bool]]:
    """Move the rows of each slice's last key to the next slice."""
    held: pa.Table | None = None
    for rows, is_last in slices:
        together = rows if held is None else pa.concat_tables([held, rows])
        if is_last:
            yield together, True
            return
        keys = together.column(key)
        num_last = int(pc.sum(pc.equal(keys, keys[-1])).as_py())
        cut = together.num_rows - num_last
        held = together.slice(cut)
        if cut:
            yield together.slice(0, cut), False


def _whole_bucket(
    storage: Storage,
    manifest: TableManifest | None,
    contract: Table,
    bucket: int,
    columns: tuple[str, ...] | None,
) -> pa.Table | None:
    if manifest is None:
        return None
    path = bucket_path(manifest, bucket)
    if path is None:
        empty = contract.empty()
        return empty.select(list(columns)) if columns else empty
    return read_part(storage, path, list(columns) if columns else None)


def _slices(
    storage: Storage,
    manifest: TableManifest,
    contract: Table,
    bucket: int,
    batch_rows: int,
    columns: tuple[str, ...] | None,
) -> Iterator[tuple[pa.Table, bool]]:
    """Slices of a bucket, each with whether it is the last; of an empty one an empty slice."""
    path = bucket_path(manifest, bucket)
    if path is None:
        empty = contract.empty()
        yield empty.select(list(columns)) if columns else empty, True
        return
    with storage.open_read(path) as handle:
        parquet = pq.ParquetFile(handle)
        held: pa.Table | None = None
        for batch in parquet.iter_batches(batch_rows, columns=list(columns) if columns else None):
            for piece in _cut(pa.Table.from_batches([batch])):
                if held is not None:
                    yield held, False
                held = piece
        assert held is not None, f"{path}: no rows, though the manifest counts some"
        yield held, True


def _cut(rows: pa.Table) -> Iterator[pa.Table]:
    pieces = max(1, -(-rows.nbytes // SLICE_BYTES))
    bounds = np.linspace(0, rows.num_rows, pieces + 1).astype(int)
    for start, stop in itertools.pairwise(bounds):
        if stop > start:
            yield rows.slice(start, stop - start)


def first_after(keys: pa.ChunkedArray, last: object, start: int) -> int:
    """First row from start on whose key lies after last; keys are sorted from there on.

    By doubling steps from start, then by halves: a slice's end lies near its start, and the table
    behind it may be long.
    """
    step = 1
    while start + step <= len(keys) and keys[start + step - 1].as_py() <= last:
        step *= 2
    low, high = start + step // 2, min(start + step - 1, len(keys))
    while low < high:
        middle = (low + high) // 2
        if keys[middle].as_py() <= last:
            low = middle + 1
        else:
            high = middle
    return low

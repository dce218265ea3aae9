"""Checks of written files against their contract: read back, all breaches at once.

Cost: one read of every column that was written except binary payloads, by the task that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files.storage import Storage
from pipeline.kernels.hashing import bucket_of
from pipeline.runtime.manifest import FileStats
from schemas.contract import Column, Table, arrow_type

CHECKED_BATCH_ROWS = 131_072


def check_file(
    storage: Storage, folder: str, name: str, table: Table, bucket: int, num_buckets: int
) -> FileStats:
    """Read one file back and compare it with its contract.

    Args:
        storage: root.
        folder: folder of the table below the root.
        name: file name.
        table: its contract.
        bucket: the bucket this file must hold.
        num_buckets: of the table.

    Returns:
        Row count, totals and reasons, and every breach found.
    """
    path = f"{folder}/{name}"
    with storage.open_read(path) as handle:
        parquet = pq.ParquetFile(handle)
        stats = FileStats(
            name=name,
            bucket=bucket,
            num_rows=parquet.metadata.num_rows,
            num_bytes=int(storage.fs.size(storage.path(path))),
        )
        stats.breaches += _type_breaches(table, parquet.schema_arrow)
        if not stats.breaches:
            _scan(parquet, table, bucket, num_buckets, stats)
    return stats


def _type_breaches(table: Table, found: pa.Schema) -> list[str]:
    expected = table.column_names
    if found.names != expected:
        return [f"{table.name}: columns {found.names}, expected {expected}"]
    return [
        f"{table.name}.{c.name}: type {found.field(c.name).type}, expected {c.type}"
        for c in table.columns
        if not same_type(found.field(c.name).type, c)
    ]


def same_type(found: pa.DataType, column: Column) -> bool:
    """Whether an Arrow type is that of a column; vectors may be of fixed or free width."""
    if column.type == "vector":
        return bool(pa.types.is_fixed_size_binary(found) or pa.types.is_binary(found))
    return plain(found) == plain(arrow_type(column.type))


def plain(kind: pa.DataType) -> str:
    """Arrow type as text without the names of list items, which writers choose."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{plain(kind.value_type)}>"
    if pa.types.is_struct(kind):
        fields = (kind.field(i) for i in range(kind.num_fields))
        return "struct<" + ",".join(f"{f.name}:{plain(f.type)}" for f in fields) + ">"
    return str(kind)


def _scan(
    parquet: pq.ParquetFile, table: Table, bucket: int, num_buckets: int, stats: FileStats
) -> None:
    columns = [c for c in table.columns if c.type not in {"binary", "vector"}]
    last: tuple[object, ...] | None = None
    nulls: dict[str, int] = {}
    outside: dict[str, tuple[int, float]] = {}
    disorder = strangers = 0
    for batch in _batches(parquet, [c.name for c in columns]):
        for column in columns:
            _column(batch.column(column.name), column, nulls, outside, stats)
        bad, last = _key_disorder(batch, table, last)
        disorder += bad
        strangers += _strangers(batch, table, bucket, num_buckets)
    for column in table.columns:
        if column.type in {"binary", "vector"} and not column.nullable:
            nulls[column.name] = _null_count(parquet, column.name)
    where = f"{table.name}.{{}}: {{}}. Contract: schemas, table {table.name}; file {stats.name}."
    for name, count in nulls.items():
        if count:
            stats.breaches.append(where.format(name, f"{count} nulls, expected none"))
    for name, (count, value) in outside.items():
        found = f"{count} values outside, e.g. {value:g}, expected {table[name].range}"
        stats.breaches.append(where.format(name, found))
    key = ",".join(table.key)
    if disorder:
        rule = "ascending without repeats" if table.is_unique else "ascending"
        stats.breaches.append(
            where.format(key, f"{disorder} rows break the order, expected {rule}")
        )
    if strangers:
        stats.breaches.append(
            where.format(key, f"{strangers} rows of another bucket than {bucket}")
        )


def _batches(parquet: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    for batch in parquet.iter_batches(CHECKED_BATCH_ROWS, columns=columns):
        yield pa.Table.from_batches([batch])


def _null_count(parquet: pq.ParquetFile, name: str) -> int:
    """Nulls of a payload column from the row groups' statistics, else by reading it."""
    metadata = parquet.metadata
    index = parquet.schema_arrow.get_field_index(name)
    total = 0
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(_leaf(parquet, index)).statistics
        if statistics is None or statistics.null_count is None:
            return int(parquet.read(columns=[name]).column(0).null_count)
        total += statistics.null_count
    return int(total)


def _leaf(parquet: pq.ParquetFile, field: int) -> int:
    """First leaf column of a field: nested fields before it have several leaves."""
    name = parquet.schema_arrow.field(field).name
    leaves = range(len(parquet.schema))
    return next(i for i in leaves if parquet.schema.column(i).path.split(".")[0] == name)


def _column(
    values: pa.ChunkedArray,
    column: Column,
    nulls: dict[str, int],
    outside: dict[str, tuple[int, float]],
    stats: FileStats,
) -> None:
    if values.null_count and not column.nullable:
        nulls[column.name] = nulls.get(column.name, 0) + values.null_count
    if column.name == "reason":
        for entry in values.value_counts().to_pylist():
            reason = str(entry["values"])
            stats.reasons[reason] = stats.reasons.get(reason, 0) + entry["counts"]
    if pa.types.is_list(values.type):
        _add(stats, column.name, pc.sum(pc.list_value_length(values)).as_py() or 0)
        values = pc.list_flatten(values)
        if values.null_count:
            nulls[column.name] = nulls.get(column.name, 0) + values.null_count
    elif pa.types.is_integer(values.type) and column.min is not None and column.min >= 0:
        _add(stats, column.name, pc.sum(values).as_py() or 0)
    _range(values, column, outside)


def _range(values: pa.ChunkedArray, column: Column, outside: dict[str, tuple[int, float]]) -> None:
    if column.min is None and column.max is None:
        return
    numbers = values.drop_null().to_numpy()
    bad = ~np.isfinite(numbers) if numbers.dtype.kind == "f" else np.zeros(len(numbers), bool)
    if column.min is not None:
        bad |= numbers < column.min
    if column.max is not None:
        bad |= numbers > column.max
    if bad.any():
        count, value = outside.get(column.name, (0, float(numbers[bad][0])))
        outside[column.name] = (count + int(bad.sum()), value)


def _add(stats: FileStats, name: str, amount: int) -> None:
    stats.totals[name] = stats.totals.get(name, 0) + amount


def _key_disorder(
    batch: pa.Table, table: Table, last: tuple[object, ...] | None
) -> tuple[int, tuple[object, ...] | None]:
    """Rows that do not follow the row before them in key order."""
    if batch.num_rows == 0:
        return 0, last
    keys = [batch.column(name).combine_chunks() for name in table.key]
    firsts = tuple(k[0].as_py() for k in keys)
    bad = 0
    if last is not None:
        in_order = last < firsts or (last == firsts and not table.is_unique)
        bad += not in_order
    decided = np.zeros(batch.num_rows - 1, bool)
    ascending = np.zeros(batch.num_rows - 1, bool)
    for key in keys:
        before, after = key[:-1], key[1:]
        less = pc.less(before, after).fill_null(False).to_numpy(zero_copy_only=False)
        equal = pc.equal(before, after).fill_null(True).to_numpy(zero_copy_only=False)
        ascending |= ~decided & less
        decided |= ~equal
    follows = ascending | (~decided if not table.is_unique else False)
    return bad + int((~follows).sum()), tuple(k[-1].as_py() for k in keys)


def _strangers(batch: pa.Table, table: Table, bucket: int, num_buckets: int) -> int:
    if num_buckets == 1 or batch.num_rows == 0:
        return 0
    return int((buckets(batch.column(table.key[0]), num_buckets) != bucket).sum())


def buckets(keys: pa.ChunkedArray | pa.Array, num_buckets: int) -> np.ndarray:
    """Bucket of each key: pmod of an integer, of xxhash64 of a string. int32 of shape (n,)."""
    if pa.types.is_integer(keys.type):
        return np.asarray(keys.to_numpy() % num_buckets, dtype=np.int32)
    return bucket_of(keys, num_buckets)

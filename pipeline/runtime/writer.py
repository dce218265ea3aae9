"""The one way a table gets onto disk: Arrow tables into Parquet parts, one a bucket, atomically.

Both kinds of stage write through here, so that files look alike whoever made the rows: fixed-width
vectors, Zstandard, row groups of bounded size, rows in key order.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files.sink import FileSink
from pipeline.files.storage import Storage
from pipeline.runtime.checks import check_file
from pipeline.runtime.manifest import FileStats
from schemas.contract import Table

ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 64 << 20
"""A row group is cut at whichever comes first: readers hold one in memory."""
STORED_ROWS = 16_384
"""Rows of a group with a stored column. Its values are one page: Arrow begins another at 20,000."""


def part_name(bucket: int) -> str:
    """File of a bucket."""
    return f"part-{bucket:05d}.parquet"


class PartWriter:
    """Writes one part of a table and checks it once it is there.

    The file appears under its name only when :meth:`close` has it complete and synced; a killed
    task leaves a hidden temporary file at most, and a retried task writes the same again.
    """

    def __init__(
        self, storage: Storage, folder: str, table: Table, bucket: int, num_buckets: int
    ) -> None:
        self._storage, self._folder, self._table = storage, folder, table
        self._bucket, self._num_buckets = bucket, num_buckets
        self._name = part_name(bucket)
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._sink: FileSink | None = None

    def write(self, rows: pa.Table) -> None:
        """Append rows, in key order.

        Args:
            rows: with the columns of the contract, in any order.

        Raises:
            ValueError: columns are missing or do not convert to the contract's types.
        """
        rows = conform(rows, self._table)
        self._pending.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        most = STORED_ROWS if self._table.stored else ROW_GROUP_ROWS
        while self._rows >= most or self._bytes >= ROW_GROUP_BYTES:
            self._flush(min(self._rows, most))

    def close(self) -> FileStats:
        """Complete the file, give it its name, read it back."""
        while self._rows or self._writer is None:
            self._flush(min(self._rows, STORED_ROWS) if self._table.stored else self._rows)
        assert self._writer is not None
        assert self._sink is not None
        self._writer.close()
        self._sink.commit()
        return check_file(
            self._storage, self._folder, self._name, self._table, self._bucket, self._num_buckets
        )

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._sink is not None:
            self._sink.abort()

    def _flush(self, num_rows: int) -> None:
        rows = pa.concat_tables(self._pending) if self._pending else _empty(self._table)
        group, rest = rows.slice(0, num_rows), rows.slice(num_rows)
        self._pending = [rest] if rest.num_rows else []
        self._rows, self._bytes = rest.num_rows, rest.nbytes if rest.num_rows else 0
        if self._writer is None:
            self._open(group.schema)
        assert self._writer is not None
        self._writer.write_table(group.cast(self._writer.schema), row_group_size=max(1, num_rows))

    def _open(self, schema: pa.Schema) -> None:
        self._sink = FileSink(self._storage, f"{self._folder}/{self._name}")
        stored = self._table.stored
        # Paths of columns are those of their leaves, which only Parquet's own schema tells.
        leaves = leaves_of(schema) if stored else []
        kept = [leaf for leaf in leaves if leaf not in stored]
        self._writer = pq.ParquetWriter(
            self._sink.as_file(),
            schema,
            compression=dict.fromkeys(kept, "zstd") | dict.fromkeys(stored, "none")
            if stored
            else "zstd",
            use_dictionary=kept if stored else True,
            write_statistics=kept if stored else True,
            data_page_size=1 << 30 if stored else None,
            write_page_index=False,
        )


def write_part(
    storage: Storage, folder: str, table: Table, bucket: int, num_buckets: int, rows: pa.Table
) -> FileStats:
    """Write one part from rows in memory; see :class:`PartWriter`."""
    return write_parts(storage, folder, table, bucket, num_buckets, [rows])


def write_parts(
    storage: Storage,
    folder: str,
    table: Table,
    bucket: int,
    num_buckets: int,
    batches: Iterable[pa.Table],
) -> FileStats:
    """Write one part from batches in key order; see :class:`PartWriter`."""
    writer = PartWriter(storage, folder, table, bucket, num_buckets)
    try:
        for rows in batches:
            writer.write(rows)
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def conform(rows: pa.Table, table: Table) -> pa.Table:
    """Rows with exactly the contract's columns, order and types; vectors of fixed width.

    Raises:
        ValueError: a column is missing or does not convert.
    """
    missing = [c for c in table.column_names if c not in rows.column_names]
    if missing:
        raise ValueError(
            f"{table.name}: columns {missing} are missing, found {rows.column_names}, "
            f"expected {table.column_names}."
        )
    columns, fields = [], []
    for field in table.arrow_schema:
        values = rows.column(field.name)
        kind = field.type
        if table[field.name].type == "vector":
            values, kind = _fixed_width(values)
        elif values.type != kind:
            try:
                values = values.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(
                    f"{table.name}.{field.name}: found {values.type}, expected {kind}: {error}"
                ) from error
        columns.append(values)
        fields.append(pa.field(field.name, kind))
    return pa.table(columns, schema=pa.schema(fields))


def _fixed_width(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.DataType]:
    """Vectors as fixed-size binary, which reads seven times faster, where all have one length."""
    if pa.types.is_fixed_size_binary(values.type):
        return values, values.type
    present = values.drop_null()
    widths = set(pc.unique(pc.binary_length(present)).to_pylist()) if len(present) else set()
    if len(widths) != 1:
        return values.cast(pa.binary()), pa.binary()
    kind = pa.binary(widths.pop())
    return values.cast(kind), kind


def _empty(table: Table) -> pa.Table:
    return table.empty()


def leaves_of(schema: pa.Schema) -> list[str]:
    """Paths of Parquet's columns."""
    out = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), out)
    columns = pq.ParquetFile(pa.BufferReader(out.getvalue())).schema
    return [columns.column(at).path for at in range(len(columns))]

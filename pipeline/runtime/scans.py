"""Input tables read by pyarrow inside Spark's tasks, one task a file: whole, or the rows of a set.

Rows do not cross the JVM on the way to a stage's kernel. Where only some are wanted, their keys
come to the file, not the file's rows to the keys: 30 bytes a key are shuffled, whatever the rows
weigh, and row groups without a wanted key are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, LongType

from pipeline.files.storage import Storage
from pipeline.runtime.places import locate_stored
from pipeline.runtime.writer import part_name
from pipeline.stages.stage import ArrowMap, StoredColumn

BUCKET = "_bucket"
"""Column of a row's bucket, while rows are shuffled to their files."""
SCAN_ROWS, SCAN_BYTES = 1 << 17, 64 << 20
"""Rows of a batch that a scan hands on, and their bytes in the file before compression."""


class InputFiles(NamedTuple):
    """An input table.

    Attributes:
        frame: as the stage was given it.
        names: of its files with rows below the root.
        num_rows: it has.
        num_buckets: of its key, a file each; 0 where files are not the buckets of the key.
    """

    frame: DataFrame
    names: Sequence[str]
    num_rows: int
    num_buckets: int = 0


def bucket_column(df: DataFrame, key: str, num_buckets: int) -> Column:
    """Bucket of a key, the layout of published tables: strings are hashed, integers are not."""
    is_number = isinstance(df.schema[key].dataType, IntegerType | LongType)
    value = F.col(key) if is_number else F.xxhash64(F.col(key))
    return F.pmod(value, F.lit(num_buckets)).cast("int").alias(BUCKET)


@dataclass(frozen=True)
class Parts:
    """How the files of a table are read.

    Attributes:
        storage: root.
        columns: that are read, the key first.
        places: a stored column whose places are told in place of its values.
    """

    storage: Storage
    columns: tuple[str, ...]
    places: StoredColumn | None = None

    def keys(self, name: str | None) -> pa.Array:
        """Keys of a file; none where there is no such file."""
        key = self.columns[0]
        if name is None:
            return pa.nulls(0)
        with self.storage.open_read(name) as handle:
            return pq.ParquetFile(handle).read(columns=[key])[key].combine_chunks()

    def rows(self, name: str, keys: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of a file.

        Args:
            name: below the root.
            keys: rows of others are left out, and row groups that have none are not read.
        """
        if keys is not None and not len(keys):
            return
        with self.storage.open_read(name) as handle:
            if self.places is None:
                batches = self._read(pq.ParquetFile(handle), keys)
            else:
                batches = locate_stored(handle, name, self.columns, *self.places)
            for batch in batches:
                if keys is None:
                    yield batch
                else:
                    yield batch.filter(pc.is_in(batch.column(self.columns[0]), keys))

    def _read(self, file: pq.ParquetFile, keys: pa.Array | None) -> Iterator[pa.RecordBatch]:
        key, groups = self.columns[0], list(range(file.num_row_groups))
        if keys is not None:
            groups = [g for g in groups if _has_any(file.read_row_group(g, [key])[key], keys)]
        for group in groups:
            rows = _batch_rows(file.metadata.row_group(group), self.columns)
            yield from file.iter_batches(rows, [group], list(self.columns))


def scan_files(
    spark: SparkSession,
    parts: Parts,
    names: Sequence[str],
    beside: Sequence[str] | None,
    fn: ArrowMap,
    ddl: str,
) -> DataFrame:
    """Files through ``fn``, a partition each, without a shuffle.

    Args:
        spark: session.
        parts: how they are read.
        names: of the files.
        beside: files of a table of the same key and layout: rows of other keys are left out.
        fn: called once a file.
        ddl: of its result.
    """
    # A bucket's part has one name in every table.
    twins = None if beside is None else {_base(name): name for name in beside}

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                name = names[number]
                keys = None if twins is None else parts.keys(twins.get(_base(name)))
                yield from fn(parts.rows(name, keys))

    return spark.range(0, len(names), 1, len(names)).mapInArrow(read, ddl)


def scan_keys(
    parts: Parts, table: InputFiles, among: DataFrame, fn: ArrowMap, ddl: str
) -> DataFrame:
    """Rows of some keys through ``fn``; the keys are shuffled to the files that may have them.

    Cost: the keys once through a shuffle; a task holds those of a bucket. Files, and row groups,
    without a wanted key are not read beyond their key column.

    Args:
        parts: how files are read.
        table: whose files are its buckets.
        among: has the key; repeats do no harm.
        fn: called once a file that has wanted keys.
        ddl: of its result.
    """
    key, num_buckets = parts.columns[0], table.num_buckets
    keyed = among.select(key, bucket_column(among, key, num_buckets))
    arrived = keyed.repartitionById(num_buckets, F.col(BUCKET))
    by_part = {_base(name): name for name in table.names}

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted: list[pa.Array] = []
        bucket = -1
        for batch in batches:
            if batch.num_rows:
                wanted.append(batch.column(0))
                bucket = batch.column(1)[0].as_py()
        name = by_part.get(part_name(bucket))
        if name is not None:
            yield from fn(parts.rows(name, pa.concat_arrays(wanted).unique()))

    return arrived.mapInArrow(read, ddl)


def _has_any(column: pa.ChunkedArray, keys: pa.Array) -> bool:
    return bool(pc.any(pc.is_in(column, keys)).as_py())


def _batch_rows(group: Any, columns: Sequence[str]) -> int:
    """Rows of a batch, so that rows of kilobytes do not make one of gigabytes."""
    leaves = [group.column(at) for at in range(group.num_columns)]
    read = [leaf for leaf in leaves if leaf.path_in_schema.partition(".")[0] in columns]
    each = sum(leaf.total_uncompressed_size for leaf in read) / max(1, group.num_rows)
    return max(1, min(SCAN_ROWS, int(SCAN_BYTES / max(1.0, each))))


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]

"""Running a relational stage: Spark plans and shuffles, the table writer takes the sorted rows."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.base import Params
from pipeline.files.storage import Storage
from pipeline.runtime.manifest import FileStats, TableManifest
from pipeline.runtime.places import locate_stored
from pipeline.runtime.writer import PartWriter
from pipeline.stages.stage import ArrowMap, RelationalStage, SmallTable, StoredColumn
from schemas.contract import Table

logger = logging.getLogger(__name__)

_BUCKET = "_bucket"
SCAN_ROWS = 1 << 17
"""Rows of a batch that a scan hands on."""


class RelationalContext:
    """What a stage may ask while it builds its plan; see ``StageContext``."""

    def __init__(
        self,
        spark: SparkSession,
        storage: Storage,
        folder: str,
        inputs: Iterable[DataFrame] = (),
    ) -> None:
        self._spark = spark
        self.storage, self.folder = storage, folder
        self._inputs = list(inputs)
        self._scratch = f"{folder}/_scratch"
        self._numbers = itertools.count()

    def materialise(self, df: DataFrame) -> DataFrame:
        """Write and re-read a frame in the stage's scratch folder, cutting the lineage."""
        path = spark_path(self.storage, f"{self._scratch}/{next(self._numbers):04d}")
        df.write.mode("overwrite").parquet(path)
        return self._spark.read.schema(df.schema).parquet(path)

    def count(self, df: DataFrame) -> int:
        """Rows of a materialised frame."""
        return df.count()

    def scan(
        self,
        df: DataFrame,
        columns: Sequence[str],
        fn: ArrowMap,
        ddl: str,
        places: StoredColumn | None = None,
    ) -> DataFrame:
        """Columns of an input through ``fn``, read by pyarrow, one task a file."""
        names = self._files(df)
        if not names and places is None:
            return df.select(*columns).mapInArrow(fn, ddl)
        storage, chosen = self.storage, list(columns)

        def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for name in batch.column("name").to_pylist():
                    with storage.open_read(name) as handle:
                        if places is None:
                            rows = pq.ParquetFile(handle).iter_batches(SCAN_ROWS, columns=chosen)
                        else:
                            rows = locate_stored(handle, name, chosen, *places)
                        yield from fn(rows)

        return self._listed(names).mapInArrow(read, ddl)

    def _listed(self, names: list[str]) -> DataFrame:
        """One row and one task a file."""
        listed = self._spark.createDataFrame(list(enumerate(names)), "number int, name string")
        return listed.repartitionById(max(1, len(names)), F.col("number"))

    def _files(self, df: DataFrame) -> list[str]:
        """Names of an input's files below the root; none where it is no plain table there."""
        if not any(df is given for given in self._inputs):
            return []
        names = []
        for uri in sorted(df.inputFiles()):
            parts = urlsplit(uri)
            paths = (unquote(parts.path), unquote(parts.netloc + parts.path))
            below = [p for p in paths if p.startswith(f"{self.storage.root}/")]
            if not below:
                return []
            names.append(below[0].removeprefix(f"{self.storage.root}/"))
        return names

    def clear(self) -> None:
        """Remove the scratch folder."""
        self.storage.remove(self._scratch)


def read_frame(
    spark: SparkSession, storage: Storage, table: Table, manifest: TableManifest
) -> DataFrame:
    """A published table as a DataFrame."""
    files = [spark_path(storage, f"{manifest.path}/{f.name}") for f in manifest.files if f.num_rows]
    if not files:
        return spark.createDataFrame([], table.ddl)
    return spark.read.schema(table.ddl).parquet(*files)


def spark_path(storage: Storage, name: str) -> str:
    """Path as Spark's Hadoop layer knows it: s3:// is s3a:// there."""
    if storage.is_local:
        return f"file://{storage.path(name)}"
    uri = f"{storage.uri}/{name}"
    return "s3a://" + uri.removeprefix("s3://") if uri.startswith("s3://") else uri


def run_relational(
    spark: SparkSession,
    stage: RelationalStage,
    params: Params,
    storage: Storage,
    folder: str,
    inputs: Mapping[str, DataFrame | SmallTable | None],
    num_buckets: int,
) -> dict[str, list[FileStats]]:
    """Build the stage's plan and write every output.

    Returns:
        table -> its files.

    Raises:
        ValueError: the function returned other tables than it declares.
    """
    frames_in = [given for given in inputs.values() if isinstance(given, DataFrame)]
    context = RelationalContext(spark, storage, folder, frames_in)
    frames = stage.fn(**inputs, params=params, ctx=context)
    expected = {table.name for table in stage.outputs}
    if set(frames) != expected:
        raise ValueError(f"{stage.name}: returned {sorted(frames)}, expected {sorted(expected)}.")
    try:
        return {
            table.name: write_frame(
                frames[table.name],
                table,
                storage,
                folder,
                num_buckets if table.layout == "bucketed" else 1,
            )
            for table in stage.outputs
        }
    finally:
        context.clear()


def write_frame(
    df: DataFrame, table: Table, storage: Storage, folder: str, num_buckets: int
) -> list[FileStats]:
    """Shuffle rows to their buckets, sort them by key and write one part a bucket.

    Cost: one shuffle of the table, and its rows once through Arrow into Python.
    """
    key = table.key[0]
    hashed = F.col(key) if table[key].type in {"int", "bigint"} else F.xxhash64(F.col(key))
    bucket = F.pmod(hashed, F.lit(num_buckets)).cast("int")
    rows = (
        df.select(*table.column_names)
        .withColumn(_BUCKET, bucket)
        .repartitionById(num_buckets, F.col(_BUCKET))
        .sortWithinPartitions(_BUCKET, *table.key)
    )
    write = _writer(table, storage, f"{folder}/{table.name}", num_buckets)
    stats = [
        FileStats.model_validate_json(row.stats)
        for row in rows.mapInArrow(write, "stats string").collect()
    ]
    written = {s.bucket for s in stats}
    if not written:
        empty = PartWriter(storage, f"{folder}/{table.name}", table, 0, num_buckets)
        empty.write(table.empty())
        stats.append(empty.close())
    return sorted(stats, key=lambda s: s.bucket)


def _writer(
    table: Table, storage: Storage, folder: str, num_buckets: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        writer: PartWriter | None = None
        current = -1
        found: list[str] = []
        try:
            for batch in batches:
                rows = pa.Table.from_batches([batch])
                for bucket, part in _by_bucket(rows, table, num_buckets):
                    if bucket != current:
                        if writer is not None:
                            found.append(writer.close().model_dump_json())
                        writer = PartWriter(storage, folder, table, bucket, num_buckets)
                        current = bucket
                    assert writer is not None
                    writer.write(part)
            if writer is not None:
                found.append(writer.close().model_dump_json())
        except BaseException:
            if writer is not None:
                writer.abort()
            raise
        yield pa.RecordBatch.from_arrays([pa.array(found, pa.string())], ["stats"])

    return write


def _by_bucket(rows: pa.Table, table: Table, num_buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Runs of equal bucket, in order; nearly always one run."""
    if rows.num_rows == 0:
        return
    found = rows.column(_BUCKET).to_numpy()
    payload = rows.select(table.column_names)
    start = 0
    for stop in [*(int(i) + 1 for i in (found[1:] != found[:-1]).nonzero()[0]), len(found)]:
        yield int(found[start]), payload.slice(start, stop - start)
        start = stop

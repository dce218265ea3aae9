"""Running a relational stage: Spark plans and shuffles, the table writer takes the sorted rows."""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.base import Params
from pipeline.files.storage import Storage
from pipeline.runtime.arrow_frames import spark_knows, write_by_arrow
from pipeline.runtime.earlier import StagePast
from pipeline.runtime.frames import by_arrow, file_names, spark_path
from pipeline.runtime.manifest import FileStats, TableManifest
from pipeline.runtime.scans import BUCKET, InputFiles, Parts, bucket_column, scan_files, scan_keys
from pipeline.runtime.writer import PartWriter
from pipeline.stages.earlier import EarlierRun
from pipeline.stages.stage import ArrowMap, RelationalStage, SmallTable, StoredColumn
from schemas.contract import Table

logger = logging.getLogger(__name__)

SCRATCH = "_scratch"
"""Folder of a version with what a stage materialises, one folder a process in it."""


class RelationalContext:
    """What a stage may ask while it builds its plan; see ``StageContext``."""

    def __init__(
        self,
        spark: SparkSession,
        storage: Storage,
        folder: str,
        inputs: Iterable[InputFiles] = (),
        past: StagePast | None = None,
    ) -> None:
        """Args:
        spark: session.
        storage: root.
        folder: of the stage's version.
        inputs: input tables.
        past: what the root holds of the stage; None for nothing.
        """
        self._past = past
        self._spark = spark
        self.storage, self.folder = storage, folder
        self._inputs = list(inputs)
        # A name of its own: another process may run the same stage into the same folder.
        self._scratch = f"{folder}/{SCRATCH}/{uuid.uuid4().hex}"
        self._numbers = itertools.count()

    def materialise(self, df: DataFrame) -> DataFrame:
        """Write and re-read a frame in the stage's scratch folder, cutting the lineage."""
        folder = f"{self._scratch}/{next(self._numbers):04d}"
        path = spark_path(self.storage, folder)
        if not spark_knows(self._spark, path):
            names = write_by_arrow(df, self.storage, folder)
            return by_arrow(self._spark, self.storage, names, df.schema)
        df.write.mode("overwrite").parquet(path)
        return self._spark.read.schema(df.schema).parquet(path)

    def earlier(self, free: Sequence[str] = ()) -> EarlierRun | None:
        """The run that the root shows, where rows may be taken over from it."""
        return None if self._past is None else self._past.earlier(free)

    def output_of(self, version: str, table: str) -> DataFrame:
        """An output of this stage in a finished version."""
        if self._past is None:
            raise ValueError(f"{table}: version {version} is not there.")
        return self._past.output_of(version, table)

    def count(self, df: DataFrame) -> int:
        """Rows of a frame: an input's are known, a materialised one's are read from its footers."""
        known = self._input(df)
        return df.count() if known is None else known.num_rows

    def scan(
        self,
        df: DataFrame,
        columns: Sequence[str],
        fn: ArrowMap,
        ddl: str,
        places: StoredColumn | None = None,
        among: DataFrame | None = None,
    ) -> DataFrame:
        """Columns of an input through ``fn``, read by pyarrow, one task a file."""
        given, key = self._input(df), columns[0]
        beside = None if among is None else self._input(among)
        is_set = among is not None and beside is None
        if given is None or (is_set and not given.num_buckets):
            if places is not None:
                raise ValueError(f"{places.name}: its table is no input table of this stage.")
            if among is not None:
                df = df.join(among.select(key), on=key, how="left_semi")
            return df.select(*columns).mapInArrow(fn, ddl)
        if not given.names:  # no rows
            return self._spark.createDataFrame([], ddl)
        parts = Parts(self.storage, tuple(columns), places)
        if among is not None and is_set:
            return scan_keys(parts, given, among, fn, ddl)
        others = None if beside is None else beside.names
        return scan_files(self._spark, parts, given.names, others, fn, ddl)

    def _input(self, df: DataFrame) -> InputFiles | None:
        """An input table; None for any other frame."""
        return next((given for given in self._inputs if given.frame is df), None)

    def clear(self) -> None:
        """Remove the scratch folder."""
        self.storage.remove(self._scratch)


def run_relational(
    spark: SparkSession,
    stage: RelationalStage,
    params: Params,
    storage: Storage,
    folder: str,
    inputs: Mapping[str, DataFrame | SmallTable | None],
    manifests: Mapping[str, TableManifest | None],
    num_buckets: int,
    past: StagePast | None = None,
) -> dict[str, list[FileStats]]:
    """Build the stage's plan and write every output.

    Args:
        spark: session.
        stage: to run.
        params: its parameters.
        storage: root.
        folder: of this version.
        inputs: what the stage's function gets.
        manifests: of those inputs that are tables of the root.
        num_buckets: of bucketed outputs.
        past: what the root holds of the stage's earlier runs.

    Returns:
        table -> its files.

    Raises:
        ValueError: the function returned other tables than it declares.
    """
    read = [
        InputFiles(given, file_names(manifest), manifest.num_rows, manifest.num_buckets)
        for name, manifest in manifests.items()
        if manifest is not None and isinstance(given := inputs[name], DataFrame)
    ]
    context = RelationalContext(spark, storage, folder, read, past)
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
    found = df.select(*table.column_names)
    rows = (
        found.select("*", bucket_column(found, table.key[0], num_buckets))
        .repartitionById(num_buckets, F.col(BUCKET))
        .sortWithinPartitions(BUCKET, *table.key)
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
    found = rows.column(BUCKET).to_numpy()
    payload = rows.select(table.column_names)
    start = 0
    for stop in [*(int(i) + 1 for i in (found[1:] != found[:-1]).nonzero()[0]), len(found)]:
        yield int(found[start]), payload.slice(start, stop - start)
        start = stop

"""Running a batchwise stage: Spark schedules buckets, each task reads, computes and writes files.

Rows never cross into the JVM. A finished bucket leaves a small marker, so that a run that was
killed goes on where it stopped; a stage whose slices take long keeps their results as well. Results
come back as task results, which Spark delivers once a task, whatever was retried.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from pipeline.config.base import Params
from pipeline.files.storage import Storage
from pipeline.runtime.manifest import FileStats, TableManifest
from pipeline.runtime.reader import aligned_slices, read_table
from pipeline.runtime.slices import SliceStore
from pipeline.runtime.writer import PartWriter
from pipeline.stages.stage import BatchResult, BatchwiseStage

logger = logging.getLogger(__name__)

_STATES: dict[str, Any] = {}
"""State of ``prepare`` by stage folder: one a worker process, built at its first bucket."""


@dataclass(frozen=True)
class BatchwiseRun:
    """All that a task needs; small, sent to every task.

    Attributes:
        stage: the stage.
        params: its parameters.
        storage: root.
        folder: output folder of this version, below the root.
        inputs: input table -> manifest, None for an absent optional one.
        num_buckets: of the aligned tables and the outputs.
    """

    stage: BatchwiseStage
    params: Params
    storage: Storage
    folder: str
    inputs: Mapping[str, TableManifest | None]
    num_buckets: int


def run_batchwise(
    spark: SparkSession, run: BatchwiseRun
) -> tuple[dict[str, list[FileStats]], dict[str, int]]:
    """Run every bucket that is not finished.

    Returns:
        table -> its files, and the summed counts of the kernel.
    """
    buckets = range(run.num_buckets)
    tasks = spark.sparkContext.parallelize(buckets, run.num_buckets)
    results = tasks.mapPartitions(
        lambda part: [run_bucket(run, bucket) for bucket in part]
    ).collect()
    files: dict[str, list[FileStats]] = {table.name: [] for table in run.stage.outputs}
    counts: dict[str, int] = {}
    for result in results:
        for name, stats in result["files"].items():
            files[name].append(FileStats.model_validate(stats))
        for name, amount in result["counts"].items():
            counts[name] = counts.get(name, 0) + amount
    return files, counts


def run_bucket(run: BatchwiseRun, bucket: int) -> dict[str, Any]:
    """Run one bucket: the body of a task.

    Returns:
        ``{"files": {table: stats}, "counts": {name: n}}``, JSON values.
    """
    marker = f"{run.folder}/_done/{bucket:05d}.json"
    if run.storage.exists(marker):
        done: dict[str, Any] = run.storage.read_json(marker)
        return done
    writers = {
        table.name: PartWriter(
            run.storage, f"{run.folder}/{table.name}", table, bucket, run.num_buckets
        )
        for table in run.stage.outputs
    }
    counts: dict[str, int] = {}
    try:
        for result in _results(run, bucket):
            for name, rows in result.tables.items():
                writers[name].write(rows)
            for name, amount in result.counts.items():
                counts[name] = counts.get(name, 0) + int(amount)
        files = {name: writer.close().model_dump() for name, writer in writers.items()}
    except BaseException:
        for writer in writers.values():
            writer.abort()
        raise
    outcome = {"files": files, "counts": counts}
    if not any(stats["breaches"] for stats in files.values()):
        run.storage.write_json_atomic(marker, outcome)
    if run.stage.keep_slices:
        SliceStore(run.storage, run.folder, bucket).clear()
    return outcome


def _results(run: BatchwiseRun, bucket: int) -> Iterator[Any]:
    stage = run.stage
    contracts = {table.name: table for table in stage.aligned}
    slices = aligned_slices(
        run.storage,
        {name: run.inputs[name] for name in contracts},
        contracts,
        bucket,
        stage.batch_rows,
        stage.columns,
        stage.whole_keys,
    )
    if stage.keep_slices:
        yield from _kept_results(run, bucket, slices)
        return
    state = _state(run)
    for tables in slices:
        yield stage.kernel(**tables, state=state, params=run.params)


def _kept_results(
    run: BatchwiseRun, bucket: int, slices: Iterator[dict[str, pa.Table | None]]
) -> Iterator[BatchResult]:
    """Results of the slices, those that an earlier attempt finished read instead of computed."""
    stage, store = run.stage, SliceStore(run.storage, run.folder, bucket)
    primary = stage.aligned[0]
    for number, tables in enumerate(slices):
        rows = tables[primary.name]
        assert rows is not None
        result = store.load(number, rows, primary.key[0])
        if result is None:
            result = stage.kernel(**tables, state=_state(run), params=run.params)
            store.save(number, rows, primary.key[0], result)
        yield result


def _state(run: BatchwiseRun) -> Any:
    key = f"{run.storage.uri}/{run.folder}"
    if key not in _STATES:
        _STATES.clear()
        _STATES[key] = _prepare(run)
    return _STATES[key]


def _prepare(run: BatchwiseRun) -> Any:
    stage = run.stage
    if stage.prepare is None:
        return None
    tables: dict[str, pa.Table | None] = {}
    for table in stage.broadcast:
        manifest = run.inputs[table.name]
        columns = stage.columns.get(table.name)
        tables[table.name] = (
            None
            if manifest is None
            else read_table(run.storage, manifest, table, list(columns) if columns else None)
        )
    return stage.prepare(**tables, params=run.params)

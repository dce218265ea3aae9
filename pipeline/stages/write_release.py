"""Write the release: shard_assignments, label_map and reports -> shards, manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.dataset import WriteReleaseParams
from pipeline.files.fetch import FetchPolicy
from pipeline.stages.release_files import label_names, write_release_files
from pipeline.stages.shard_files import PlannedSample, ShardTask
from pipeline.stages.shard_tally import STATISTICS_DDL
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.contract import arrow_type
from schemas.dataset import (
    LABEL_MAP,
    RELEASE_STATISTICS,
    RESAMPLING_REPORT,
    SAMPLING_POLICY,
    SHARD_ASSIGNMENTS,
    SHARD_PLAN,
    SHARDS,
)
from schemas.images import VALIDATION_CERTIFICATE

_RECORD_DDL = f"{SHARDS.ddl}, statistics {STATISTICS_DDL}, failures array<string>"
_RECORD_SCHEMA = pa.schema(
    [
        *SHARDS.arrow_schema,
        pa.field("statistics", arrow_type(STATISTICS_DDL)),
        pa.field("failures", pa.list_(pa.string())),
    ]
)
_FAILED = "_failed"
_MAX_NAMED = 20


def write_release(
    shard_assignments: DataFrame,
    label_map: SmallTable,
    params: WriteReleaseParams,
    ctx: StageContext,
    **reports: SmallTable | None,
) -> dict[str, DataFrame]:
    """Every shard as a tar with its index, and a row about it; `finalise` adds the other files.

    A file of `shard_assignments` has whole shards, rows in their order: a task streams through it
    and reads each image from its uri, or from its place in the files of `images`. Nothing is
    shuffled. Shards that an earlier, killed run finished are left as they are.

    Cost at 1.329 billion images: 42 TB read, an image at a time, and 42 TB written. Memory of a
    task: a batch of rows, two images a reading thread, one shard's index.
    Source: SPEC W1, W3, W4.

    Raises:
        ValueError: images are missing or have other bytes than planned; names their keys.
    """
    del reports
    policy = FetchPolicy(params.read_seconds, params.read_retries, params.read_threads)
    task = ShardTask(ctx.storage, ctx.folder, policy)
    ctx.storage.remove(f"{ctx.folder}/{_FAILED}")
    done = task.finished_ids()
    written = _write_missing(shard_assignments, label_map, task, done, ctx)
    # Both outputs come from these rows; without the cut Spark would write the shards twice.
    records = ctx.materialise(written)
    _raise_failures(task)
    if done:
        records = records.unionByName(_finished(shard_assignments, task, done))
    statistics = records.select(F.explode("statistics").alias("s")).select("s.*")
    sums = (F.sum(name).alias(name) for name in ("num_images", "num_samples", "num_bytes"))
    return {
        "written_shards": records.select(*SHARDS.column_names),
        "release_statistics": statistics.groupBy("kind", "value").agg(*sums),
    }


def _write_missing(
    assignments: DataFrame,
    label_map: SmallTable,
    task: ShardTask,
    done: list[int],
    ctx: StageContext,
) -> DataFrame:
    """Records of the shards that are not done, each file of the table by one task."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = label_names(label_map.read())
        for record in task.write(_without(done, batches), names):
            failed = f"{task.folder}/{_FAILED}/shard-{record['shard_id']:06d}.json"
            if record["failures"]:
                task.storage.write_json_atomic(failed, record["failures"])
            else:  # of an earlier try of this task
                task.storage.remove(failed)
            yield pa.RecordBatch.from_pylist([record], _RECORD_SCHEMA)

    return ctx.scan(assignments, PlannedSample._fields, write, _RECORD_DDL)


def _without(done: list[int], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        is_done = np.isin(batch.column("shard_id").to_numpy(), done)
        yield batch.filter(pa.array(~is_done))


def _finished(assignments: DataFrame, task: ShardTask, done: list[int]) -> DataFrame:
    """Records of shards that were there already."""
    ids = assignments.sparkSession.createDataFrame([(shard,) for shard in done], "shard_id int")

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for shard_id in batch.column("shard_id").to_pylist():
                record = task.finished(shard_id)
                if record is None:
                    raise ValueError(
                        f"shard {shard_id} in {task.storage.uri}/{task.folder}: its files changed "
                        "since they were written. Its marker is removed: run the stage again."
                    )
                yield pa.RecordBatch.from_pylist([record], _RECORD_SCHEMA)

    return ids.mapInArrow(read, _RECORD_DDL)


def _raise_failures(task: ShardTask) -> None:
    """Fail with the keys that could not be written, if there are any."""
    folder = f"{task.folder}/{_FAILED}"
    shards = task.storage.list(folder)
    if not shards:
        return
    named: list[str] = []
    for shard in shards:
        if len(named) < _MAX_NAMED:
            named += task.storage.read_json(f"{folder}/{shard}")
    raise ValueError(
        f"write_release: samples of {len(shards)} shards cannot be written, expected the images as "
        f"they were fingerprinted: {'; '.join(named[:_MAX_NAMED])}. "
        f"All keys: {task.storage.uri}/{folder}. Bring the images back and run again (finished "
        "shards are kept), or run the chain again without them."
    )


STAGE = RelationalStage(
    name="write_release",
    version=3,
    fn=write_release,
    params=WriteReleaseParams,
    folder="release",
    inputs=(SHARD_ASSIGNMENTS,),
    broadcast=(
        LABEL_MAP,
        RESAMPLING_REPORT,
        SAMPLING_POLICY,
        SHARD_PLAN,
        VALIDATION_CERTIFICATE,
    ),
    optional=(VALIDATION_CERTIFICATE,),
    outputs=(SHARDS, RELEASE_STATISTICS),
    finalise=write_release_files,
    finalise_reads=(
        SHARDS,
        RELEASE_STATISTICS,
        LABEL_MAP,
        RESAMPLING_REPORT,
        SAMPLING_POLICY,
        SHARD_PLAN,
        VALIDATION_CERTIFICATE,
    ),
    ledger=(LedgerRule("samples", ("shard_assignments",), ("written_shards.num_samples",)),),
)

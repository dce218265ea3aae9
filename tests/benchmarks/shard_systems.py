"""Writers of shards beside each other; each function is for a process of its own.

They return wall seconds with what they wrote. Sessions of Spark and pools of processes have done a
small job before the clock starts. Every system leaves its files written back to disk: those that do
not sync are followed by a sync of what they wrote, on the clock.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shard_world import LABELS, World
from pipeline.files.fetch import FetchPolicy
from pipeline.files.storage import open_storage
from pipeline.stages.shard_files import ShardTask

CORES = 2
SHUFFLE_PARTITIONS = 10
_TURNS = itertools.count()
NUM_WARM = 6
"""Small releases before the clock starts: each takes less than the one before, 1.8 to 0.8 s."""


def ours(world: World, warm: World, out: str) -> tuple[float, dict[str, str]]:
    """`write_release` under Spark; returns the sha256 of each shard."""
    spark = _session(out)
    for _ in range(NUM_WARM):
        _release(spark, warm)
    started = time.perf_counter()
    digests = _release(spark, world)
    seconds = time.perf_counter() - started
    spark.stop()
    return seconds, digests


def _release(spark: Any, world: World) -> dict[str, str]:
    from pipeline.config.dataset import WriteReleaseParams
    from pipeline.runtime.relational import RelationalContext
    from pipeline.runtime.scans import InputFiles
    from pipeline.stages.write_release import write_release
    from schemas.dataset import SHARD_ASSIGNMENTS

    root = open_storage(world.root)
    path = f"file://{world.folder('shard_assignments')}"
    assignments = spark.read.schema(SHARD_ASSIGNMENTS.ddl).parquet(path)
    folder = f"release-{os.getpid()}-{next(_TURNS)}"  # a new one, or its shards are taken over
    files = sorted(Path(world.folder("shard_assignments")).iterdir())
    names = [f"shard_assignments/{file.name}" for file in files]
    given = InputFiles(assignments, names, world.num_images)
    ctx = RelationalContext(spark, root, folder, [given])
    tables = write_release(assignments, _label_map(), WriteReleaseParams(), ctx)
    return {row["name"]: row["sha256"] for row in tables["written_shards"].collect()}


def same_writer_no_spark(world: World, warm: World, out: str) -> tuple[float, dict[str, str]]:
    """The writing task alone, in two processes, over the same files of planned samples."""
    del out
    # Processes take a shard when they are free, as Spark's do.
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(_nothing, range(CORES), chunksize=1)
        _written(pool, warm)
        started = time.perf_counter()
        digests = _written(pool, world)
        seconds = time.perf_counter() - started
    return seconds, digests


def _written(pool: Any, world: World) -> dict[str, str]:
    files = sorted(map(str, Path(world.folder("shard_assignments")).iterdir()))
    work = [(world, f"plain-{os.getpid()}", file) for file in files]
    records = chain.from_iterable(pool.starmap(_write_shards, work, chunksize=1))
    return {record["name"]: record["sha256"] for record in records}


def webdataset_in_spark(world: World, warm: World, out: str) -> tuple[float, int]:
    """webdataset's TarWriter inside foreachPartition; returns the samples written."""
    spark = _session(out)
    for turn in range(NUM_WARM):
        _webdataset(spark, warm, f"{out}/warm_shards_{turn}")
    started = time.perf_counter()
    _webdataset(spark, world, f"{out}/shards")
    seconds = time.perf_counter() - started
    spark.stop()
    return seconds, _num_samples(f"{out}/shards")


def _webdataset(spark: Any, world: World, target: str) -> None:
    Path(target).mkdir()

    def write(rows: Iterable[Any]) -> None:
        import webdataset
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        with webdataset.TarWriter(f"{target}/shard-{context.partitionId():06d}.tar") as sink:
            for row in rows:
                members = {name: bytes(row[name]) for name in ("jpg", "txt", "json")}
                sink.write({"__key__": row.key, **members})

    spark.read.parquet(f"file://{world.folder('members')}").foreachPartition(write)
    _sync(target)


def raw_copy(world: World, warm: World, out: str) -> tuple[float, int]:
    """Bytes of the images' files copied in two processes."""
    del warm  # a copy has nothing to warm
    Path(out).mkdir()
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(_nothing, range(CORES), chunksize=1)
        started = time.perf_counter()
        files = [(str(p), f"{out}/{p.name}") for p in Path(world.folder("images")).iterdir()]
        pool.starmap(_copy, files, chunksize=1)
        seconds = time.perf_counter() - started
    return seconds, len(files)


def _label_map() -> Any:
    rows = pa.table({"label_id": list(range(len(LABELS))), "name": LABELS})

    class LabelMap:  # tasks cannot import this file
        def read(self) -> pa.Table:
            return rows

    return LabelMap()


def _write_shards(world: World, folder: str, file: str) -> list[dict[str, Any]]:
    task = ShardTask(open_storage(world.root), folder, FetchPolicy())
    return list(task.write(pq.ParquetFile(file).iter_batches(10_000), LABELS))


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    handle = os.open(target, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _sync(folder: str) -> None:
    for path in Path(folder).iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _num_samples(folder: str) -> int:
    import tarfile

    found = 0
    for path in Path(folder).iterdir():
        with tarfile.open(path) as archive:
            found += sum(name.endswith(".json") for name in archive.getnames())
    return found


def _nothing(_: int) -> None:
    time.sleep(0.2)  # long enough that every process gets one


def _session(out: str) -> Any:
    from pipeline.config.runtime import RuntimeParams
    from pipeline.runtime.session import open_session

    Path(out).mkdir(parents=True, exist_ok=True)
    settings = RuntimeParams(cores=CORES, driver_memory="6g", shuffle_partitions=SHUFFLE_PARTITIONS)
    spark = open_session("shards", settings, f"{out}/spark")

    def same(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Workers have these imports behind them when the clock starts.
        import webdataset  # noqa: F401

        import pipeline.stages.write_release  # noqa: F401

        yield from batches

    few = spark.range(1000, numPartitions=CORES).mapInArrow(same, "id bigint")
    few.groupBy("id").count().write.parquet(f"file://{out}/warm")
    spark.range(10, numPartitions=CORES).foreachPartition(lambda rows: None)
    return spark

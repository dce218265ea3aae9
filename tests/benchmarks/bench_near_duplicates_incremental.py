"""A batch of images added to a corpus: `find_near_duplicates` after an earlier run, and anew.

Both are the whole stage, read, published and checked, over the same tables; only the perceptual
tier is on. Batches follow each other, so the corpus grows by each; figures are medians over them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import near_duplicate_systems as systems
from benchmarks.bench_near_duplicates import THREADS
from benchmarks.harness import Measurement, Size, in_process, say

CORPUS = {"full": 1_000_000, "small": 20_000}
BATCH = {"full": 10_000, "small": 200}
RADIUS, NUM_BATCHES, NUM_BUCKETS = 4, 3, 8
PLANTED_SHARE = 20
"""One row in so many is some bits from an earlier one."""


def run(size: Size) -> Measurement:
    """Measure and compare.

    Args:
        size: full is 10,000 images added to 1M.
    """
    count, batch = CORPUS[size], BATCH[size]
    with tempfile.TemporaryDirectory(prefix="bench-incremental-") as folder:
        ran = {
            mode: in_process(grow, f"{folder}/{mode}", count, batch, mode, environment=THREADS)
            for mode in ("auto", "never")
        }
    seconds = {}
    for name, mode in (("incremental", "auto"), ("from_scratch", "never")):
        times = [batch_seconds for batch_seconds, _ in ran[mode].value]
        seconds[name] = statistics.median(times)
        say(f"{name}: {', '.join(f'{s:.2f}' for s in times)} s")
    is_equal = [d for _, d in ran["auto"].value] == [d for _, d in ran["never"].value]
    return Measurement(
        size={"size": size, "corpus": count, "new": batch, "batches": NUM_BATCHES,
              "radius": RADIUS, "cores": systems.CORES},
        seconds=seconds,
        rate={name: count / value for name, value in seconds.items()},
        ratio={"from_scratch": seconds["from_scratch"] / seconds["incremental"]},
        quality={"equal_bytes": is_equal},
        peak_mib={
            "incremental": ran["auto"].peak_mib,
            "from_scratch": ran["never"].peak_mib,
        },
    )  # fmt: skip


def grow(root: str, count: int, batch: int, mode: str) -> list[tuple[float, str]]:
    """Seconds and a digest of the pairs for each batch; with ``auto`` the corpus was run before."""
    from pipeline.config.images import NearDuplicateParams, VerifyParams
    from pipeline.config.run import RunConfig
    from pipeline.config.runtime import RuntimeParams
    from pipeline.files.storage import open_storage
    from pipeline.runtime.lifecycle import Lifecycle
    from pipeline.runtime.planning import plan_stage
    from pipeline.stages.find_near_duplicates import STAGE

    params = NearDuplicateParams(
        exact=False, semantic=False, max_hamming=RADIUS, incremental=mode,
        incremental_min_images=0,
        verify=VerifyParams(enabled=False),
    )  # fmt: skip
    runtime = RuntimeParams(num_buckets=NUM_BUCKETS)
    config = RunConfig(root=root, runtime=runtime, near_duplicates=params)
    storage = open_storage(root)
    hashes = plant(count + NUM_BATCHES * batch)
    spark = systems._session(f"{root}/_spark")
    told = []
    for number in range(NUM_BATCHES + 1):
        if number == 0 and mode == "never":
            continue
        given = publish(storage, hashes[: count + number * batch])
        versions = {name: manifest.version for name, manifest in given.items()}
        planned = plan_stage(STAGE, config, storage, versions)
        started = time.perf_counter()
        manifest = Lifecycle(spark, config, storage, given).run(planned)
        if number:
            told.append((time.perf_counter() - started, digest(storage, manifest)))
    spark.stop()
    return told


def plant(count: int) -> np.ndarray:
    """uint64 (count,): random hashes, some of them 1 to ``RADIUS`` bits from an earlier one."""
    rng = np.random.default_rng(7)
    hashes = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    rows = np.flatnonzero(rng.random(count) < 1 / PLANTED_SHARE)
    rows = rows[rows > 0]
    flips = np.zeros(len(rows), np.uint64)
    for _ in range(RADIUS):
        flips |= np.uint64(1) << rng.integers(0, 64, len(rows)).astype(np.uint64)
    hashes[rows] = hashes[(rng.random(len(rows)) * rows).astype(np.int64)] ^ flips
    return hashes


def publish(storage: Any, hashes: np.ndarray) -> dict[str, Any]:
    """The stage's inputs as published versions: fingerprints, and no embedding."""
    from given import publish_table

    from schemas import ALL

    names = pc.utf8_lpad(pa.array(np.arange(len(hashes))).cast(pa.string()), 9, "0")
    values = {"image_id": names, "phash": pa.array(hashes.view(np.int64)), "sha256": names}
    same = {
        "width": 10, "height": 10, "num_bytes": 100, "format": "png", "orientation": 1,
        "is_flat": False, "thumbnail": b"t",
    }  # fmt: skip
    table = ALL["image_fingerprints"]
    columns = [
        values[field.name]
        if field.name in values
        else pa.repeat(pa.scalar(same[field.name], field.type), len(hashes))
        for field in table.arrow_schema
    ]
    rows = {"image_fingerprints": pa.table(columns, schema=table.arrow_schema)}
    rows |= {name: ALL[name].empty() for name in ("image_embeddings", "embedding_cells")}
    version = f"{len(hashes):012x}"
    return {
        name: publish_table(storage, ALL[name], data, NUM_BUCKETS, version)
        for name, data in rows.items()
    }


def digest(storage: Any, manifest: Any) -> str:
    """SHA-256 over the published pairs' files."""
    import hashlib

    found = hashlib.sha256()
    table = manifest.tables["near_duplicate_candidates"]
    for file in table.files:
        found.update(storage.read_bytes(f"{table.path}/{file.name}"))
    return found.hexdigest()

"""Writing webdataset shards from images in Parquet: ours under Spark and without, webdataset's.

`ours` is the whole of `write_release` as in production: planned samples in their shuffled order,
each image read from its place in the table's files, image, text and JSON members, sha256 checked
and taken, files synced, indexes, markers. `same_writer_no_spark` is its writer in two processes
without Spark over the same planned samples. `webdataset_in_spark` is webdataset's TarWriter inside
foreachPartition over the same images in Parquet, in their order, with the same members and nothing
else. `raw_copy` copies the same bytes file by file, the ceiling. Systems take turns, each in a
process that has done some small releases before the clock starts: Spark makes its plans then, and
Java compiles for some seconds, which a run of hours does not notice. Medians of rounds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import shard_systems as systems
from benchmarks.harness import Measurement, Size, in_process, medians, say
from benchmarks.shard_world import World, make_world

NUM_IMAGES = {"full": 50_000, "small": 400}
NUM_WARM = 400
ROUNDS = {"full": 5, "small": 1}
THREADS = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "2"}


def run(size: Size) -> Measurement:
    """Measure, and compare what was written.

    Args:
        size: full is 50,000 JPEGs of some 30 KB.
    """
    with tempfile.TemporaryDirectory(prefix="bench-shards-") as folder:
        say("making the images")
        warm = make_world(f"{folder}/warm", NUM_WARM)
        return _measured(size, make_world(f"{folder}/root", NUM_IMAGES[size]), warm, Path(folder))


def _measured(size: Size, world: World, warm: World, folder: Path) -> Measurement:
    functions: dict[str, Callable[..., Any]] = {
        "ours": systems.ours,
        "same_writer_no_spark": systems.same_writer_no_spark,
        "webdataset_in_spark": systems.webdataset_in_spark,
        "raw_copy": systems.raw_copy,
    }
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    peak: dict[str, float] = {}
    digests: dict[str, Any] = {}
    for turn in range(ROUNDS[size]):
        for name, function in functions.items():
            out = folder / name
            shutil.rmtree(out, ignore_errors=True)
            for given in (world, warm):
                _clear_releases(given)
            os.sync()  # what others wrote is on disk before the clock starts
            ran = in_process(function, world, warm, str(out), environment=THREADS)
            took, digests[name] = ran.value
            seconds[name].append(took)
            peak[name] = max(peak.get(name, 0.0), ran.peak_mib)
            rate = world.num_bytes / took / 1e6
            say(f"{name} {turn}: {took:.2f} s, {rate:.0f} MB/s, {ran.peak_mib:.0f} MiB")
    middle = medians(seconds)
    rate = {name: world.num_images / took for name, took in middle.items()}
    return Measurement(
        size={
            "size": size,
            "images": world.num_images,
            "mean_bytes": world.num_bytes / world.num_images,
            "shards": world.num_shards,
            "cores": systems.CORES,
        },
        seconds=middle,
        rate=rate,
        ratio={
            "webdataset_in_spark": rate["ours"] / rate["webdataset_in_spark"],
            "same_writer_no_spark": rate["ours"] / rate["same_writer_no_spark"],
            "raw_copy": rate["ours"] / rate["raw_copy"],
        },
        quality={
            "equal_without_spark": digests["ours"] == digests["same_writer_no_spark"],
            "megabytes_per_second": world.num_bytes / middle["ours"] / 1e6,
            "samples_webdataset": digests["webdataset_in_spark"],
        },
        peak_mib=peak,
    )


def _clear_releases(world: World) -> None:
    for kind in ("release", "plain"):
        for folder in Path(world.root).glob(f"{kind}-*"):
            shutil.rmtree(folder)

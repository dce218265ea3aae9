"""The label half of the chain at 1M, 10M and 100M planted images: time, memory, shuffle, spill.

Selection, mapping, the label map, label counts, resampling, its report and the shard plan, one
after the other, each in a process of its own through its real life: read, written, read back,
published. Buckets hold some 300,000 images, as README advises, so that a task's work stays the same
while the corpus grows. Ten candidate annotations an image at every size. Stages may be kept as they
are measured (`kept`). CPU seconds are of all processes; they say more than those of the clock where
others use the machine. There are no peers here: bench_label_images has those of label mapping.

The shard plan shuffles some 0.5 KB an image. From ``PACKED_FROM`` images on Spark compresses that
by zstd, not LZ4, because the disk of the machine that this was first run on has no room for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.growth import Figure, measurement
from benchmarks.harness import Measurement, Size, in_process, say
from benchmarks.kept import Kept, sizes
from benchmarks.label_half_systems import CORES, DRIVER_MEMORY, StageRun, drop_tables, run_stage
from benchmarks.label_half_world import ALIASES, FOREIGN, SENSITIVE, UNIQUE, make_world
from benchmarks.label_world import NUM_CLUSTERS, NUM_TERMS, World

IS_LONG = True
SIZES = {"full": (1_000_000, 10_000_000, 100_000_000), "small": (4_000, 20_000)}
BUCKET_IMAGES = {"full": 300_000, "small": 4_000}
LEAST_BUCKETS = 2
STAGES = {
    "select_annotations": ("annotations",),
    "label_images": ("selected_annotations", "image_interests"),
    "freeze_labels": ("image_labels", "unlabelled_images"),
    "count_labels": (),
    "resample_images": ("training_images", "excluded_images"),
    "report_resampling": ("resampled_out",),
    "assign_shards": ("samples", "unique_images", "images"),
}
"""Stages in running order, with the tables that none behind them reads."""
PACKED, PACKED_FROM = "assign_shards", 30_000_000
ROWS = {
    "select_annotations": "annotations",
    "label_images": "images",
    "freeze_labels": "image_labels",
    "count_labels": "training_images",
    "resample_images": "training_images",
    "report_resampling": "samples",
    "assign_shards": "samples",
}
"""The table whose rows a stage goes through."""
THREADS = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "2"}


def run(size: Size) -> Measurement:
    """Measure.

    Args:
        size: full is 100M images at most.
    """
    kept, rows = Kept(), sizes(SIZES[size])
    for count in rows:
        if kept.lacks(key_of(stage, count) for stage in STAGES):
            with tempfile.TemporaryDirectory(prefix="bench-label-half-") as folder:
                measure(count, BUCKET_IMAGES[size], folder, kept)
    found = [
        Figure(stage, figures["images"], figures)
        for count in rows
        for stage in STAGES
        if (figures := kept.figures.get(key_of(stage, count))) is not None
    ]
    what = {
        "size": size,
        "images": list(rows),
        "zstd": f"shuffles of {PACKED} from {PACKED_FROM} images on",
        "terms": NUM_TERMS,
        "clusters": NUM_CLUSTERS,
        "annotations_an_image": 10,
        "unique_share": UNIQUE,
        "alias_share": ALIASES / 2,
        "foreign_share": FOREIGN,
        "sensitive_share": SENSITIVE,
        "images_a_bucket": BUCKET_IMAGES[size],
        "driver_memory": DRIVER_MEMORY,
        "cores": CORES,
    }
    return measurement(what, found)


def key_of(stage: str, count: int) -> str:
    """Name of a figure: a stage of the corpus of ``count`` images."""
    return f"{stage}_{count}"


def measure(count: int, bucket_images: int, folder: str, kept: Kept) -> None:
    """All stages over a corpus of ``count`` images, each kept as soon as it is measured."""
    num_buckets = max(LEAST_BUCKETS, -(-count // bucket_images))
    say(f"planting {count} images in {num_buckets} buckets")
    world = make_world(f"{folder}/world", count, num_buckets, CORES)
    say(f"planted {world.num_annotations} annotations")
    for stage, last_read in STAGES.items():
        environment = dict(THREADS)
        if stage == PACKED and count >= PACKED_FROM:
            environment["SPARK_CONF_DIR"] = zstd_settings(f"{folder}/conf")
        given = (stage, world, num_buckets, f"{folder}/scratch")
        ran = in_process(run_stage, *given, environment=environment)
        done: StageRun = ran.value
        figures = {
            "images": count,
            "seconds": done.seconds,
            "peak_mib": ran.peak_mib,
            "task_mib": ran.worker_mib,
            **done.costs,
            "output_bytes": bytes_of(done.tables),
            "rows_in": world.tables[ROWS[stage]].num_rows,
        }
        kept.add(key_of(stage, count), figures)
        say(f"{key_of(stage, count)}: {figures}")
        tables = world.tables | dict(done.tables)
        world = drop_tables(World(world.root, tables, world.num_annotations), last_read)


def bytes_of(tables: Mapping[str, Any]) -> int:
    """Bytes of the files of tables."""
    return sum(file.num_bytes for table in tables.values() for file in table.files)


def zstd_settings(folder: str) -> str:
    """A folder for SPARK_CONF_DIR, with which shuffles are compressed by zstd."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "spark-defaults.conf").write_text("spark.io.compression.codec zstd\n")
    return folder

"""Does each choice of the paper help on real photos, at the size that this machine can do?

The whole of `run_ablations` over `benchmarks.ablation_photos`: labels by clustering alone, with the
visual dictionary, with the restriction to interests; resampling; the loss; a quarter of the images;
a ViT and a ResNet; every arm with the same seeds. Under quality: the difference of each finding
with its interval over seeds and queries, and the verdict; of each arm its figure, its labels and
the images it is trained on.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ablation_photos import make_photo_world
from benchmarks.harness import Measurement, Size, say
from pipeline.config.load import load_config
from pipeline.runtime.ablations.command import run_ablations
from pipeline.runtime.ablations.report import Record, to_lines

SIZES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "full": (10_000, 3_000, 600, (0, 1, 2)),
    "small": (600, 60, 4, (0, 1)),
}
"""Photos, queries, updates of a training after its warm-up, seeds."""
KEEP = "BENCH_ABLATIONS"
"""Environment variable: a folder to keep tables and runs in, so that a killed run goes on."""


def run(size: Size) -> Measurement:
    """Make the photos' tables, run the ablations over them.

    Args:
        size: full is 10,000 photos, 24 trainings of 600 updates.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="bench-ablations-") as name:
        return _run(size, Path(os.environ.get(KEEP) or name))


def _run(size: Size, folder: Path) -> Measurement:
    num_images, num_queries, updates, seeds = SIZES[size]
    world = make_photo_world(folder / "photos", num_images, num_queries, _sections(updates, seeds))
    say(f"{world.num_images} photos, annotations {world.annotations}")
    config = load_config(str(world.preset), root=str(folder / "root"))
    record, _ = run_ablations(config)
    for line in to_lines(record):
        say(line)
    return Measurement(
        size={
            "size": size,
            "photos": world.num_images,
            "annotations": world.annotations,
            "queries": record["num_queries"],
            "seeds": len(seeds),
            "updates": record["arms"][0]["updates"],
            "metric": record["metric"],
        },
        quality=_quality(record),
    )


def _quality(record: Record) -> dict[str, Any]:
    quality: dict[str, Any] = {}
    for finding in record["findings"]:
        found = finding["by_metric"][record["metric"]]
        quality[finding["name"]] = [found["value"], found["low"], found["high"]]
        quality[f"{finding['name']}_verdict"] = found["verdict"]
    for arm in record["arms"]:
        figure = arm["figures"][record["metric"]]["value"]
        quality[f"arm_{arm['name']}"] = [figure, arm["num_labels"], arm["num_trained_images"]]
    quality["untrained"] = record["arms"][0]["untrained"]
    return quality


def _sections(updates: int, seeds: tuple[int, ...]) -> dict[str, object]:
    return {
        "runtime": {
            "num_buckets": 4,
            "shuffle_partitions": 4,
            "java_options": "-XX:+UseParallelGC -XX:TieredStopAtLevel=1 "
            "-XX:ReservedCodeCacheSize=240m",
        },
        "embed_images": {"image_size": 96},
        "select_annotations": {"min_confidence": 0.3},
        "sample_concreteness": {"min_confidence": 0.3, "pool_size": 3000},
        "score_concreteness": {"min_positives": 10},
        "select_visual_terms": {"boundary": _BOUNDARY},
        "cluster_terms": {"terms_per_cluster": 3},
        "freeze_labels": {"min_images_per_label": 3},
        "assign_shards": {"samples_per_shard": 1000},
        "train": {
            "model": {
                "name": "vit_tiny_patch16_224",
                "image_size": 32,
                "patch_size": 4,
                "width": 64,
                "depth": 4,
                "heads": 2,
            },
            "data": {
                "global_batch": 64,
                "virtual_ranks": 4,
                "lanes": 2,
                "window": 1024,
                "chunk": 32,
                "crop_min_area": 0.4,
                "horizontal_flip": True,
                "eval_crop": 1.0,
            },
            "optimizer": {"lr": 2.0e-3},
            "schedule": {"warmup_steps": min(100, updates)},
            "run": {
                "workers": 0,
                "threads": 1,
                "log_every": 100,
                "checkpoint_every": 500,
                "tensorboard": False,
            },
        },
        "ablations": {
            "base": [
                "resample_images.materialised=false",
                "train.schedule.length=steps",
                f"train.schedule.steps={updates}",
            ],
            "seeds": list(seeds),
            "evaluate": _ASKED,
        },
    }


_BOUNDARY = 0.58
"""Half of a photo's keywords are planted noise, so a term's classifier is right less often: 0.58
keeps 328 of the 380 search terms that were scored, and 6 of the 164 words that name no thing."""
_ASKED = {
    "few_shot": {"shots": [1, 5, 25], "l2": [1.0, 16.0, 256.0, 4096.0]},
    "linear_probe": {"inverse_penalties": [0.1], "max_iterations": 30},
}
"""A hundred classes and 1,500 support photos: the whole grids would take longer than a training."""

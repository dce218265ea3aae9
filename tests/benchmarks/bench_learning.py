"""Does the trainer learn what is there, and nothing where nothing is?

Planted releases (tests/planted_release.py): pictures that show their labels, and the same pictures
with the labels dealt anew. Printed under quality: training loss at the start and at the end and the
floor it cannot pass (mean ln k, excess 0); margins over the prior-only baseline on held-out images
with 95 % intervals over images, also for the permuted control; recall of the rarer half of the
labels under inverse-sqrt resampling less natural sampling, seeds paired; few-shot accuracy by
shots, trained and random weights.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_runs import (
    ALONE,
    Learned,
    excess_over_prior,
    features,
    margin_over_prior,
    rare_recall_difference,
    score,
    train,
)
from planted_release import PlantedRelease, plant, tagged_folder

from benchmarks.harness import Measurement, Size, say
from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.export import open_export
from pipeline.evaluate.fewshot import fewshot_hits
from pipeline.evaluate.sets import tagged_set

SIZES: dict[str, tuple[PlantedRelease, int, int]] = {
    "full": (PlantedRelease(num_images=4000, num_labels=32), 240, 5),
    "small": (PlantedRelease(), 40, 1),
}
"""Release, updates of a run, paired seeds."""
SHOTS = (1, 5, 25)
PENALTY = 4.0


def run(size: Size) -> Measurement:
    """Train all runs and score them.

    Args:
        size: full is 4,000 pictures of 32 labels, 240 updates, five pairs of seeds.
    """
    torch.set_num_threads(1)
    planted, steps, seeds = SIZES[size]
    with tempfile.TemporaryDirectory(prefix="bench-learning-") as name:
        folder = Path(name)
        root = plant(folder / "planted", planted)
        shuffled = plant(folder / "permuted", replace(planted, permuted=True))
        runs: dict[str, list[Path]] = {"natural": [], "policy": []}
        for sampling, paths in runs.items():
            for seed in range(seeds):
                paths.append(train(root, folder / f"{sampling}{seed}", steps, seed, sampling))
                say(f"{sampling} {seed}")
        scored = {key: [score(root, path) for path in paths] for key, paths in runs.items()}
        control = score(shuffled, train(shuffled, folder / "control", steps))
        few = _few_shot(runs["natural"][0], folder / "tagged", planted.num_labels)
    quality = _quality(scored, control) | few
    told = {"size": size, "images": planted.num_images, "labels": planted.num_labels}
    return Measurement(size={**told, "updates": steps, "seeds": seeds}, quality=quality)


def _quality(scored: dict[str, list[Learned]], control: Learned) -> dict[str, Any]:
    natural, policy = scored["natural"], scored["policy"]
    first, last = natural[0].log[0], natural[0].log[-1]
    return {
        "loss_start": first["loss"],
        "loss_end": last["loss"],
        "floor": last["loss"] - last["excess_loss"],
        "recall_over_prior": _interval(margin_over_prior(natural[0])),
        "excess_loss_over_prior": _interval(excess_over_prior(natural[0])),
        "permuted_recall_over_prior": _interval(margin_over_prior(control)),
        "permuted_excess_loss_over_prior": _interval(excess_over_prior(control)),
        "rare_label_recall_difference": _interval(rare_recall_difference(policy, natural)),
        "rare_label_recall_difference_by_seed": [
            rare_recall_difference([a], [b]).value for a, b in zip(policy, natural, strict=True)
        ],
    }


def _few_shot(run_folder: Path, tagged: Path, num_labels: int) -> dict[str, Any]:
    """Accuracy by shots: half the labels as classes, each beside the two most frequent labels."""
    images = tagged_set("textures", str(tagged_folder(tagged, num_labels // 2, 45, others=2)))
    export = open_export(str(run_folder / "export"), 0, ALONE)
    is_query = np.array([int(i.rpartition("/")[2][:3]) >= SHOTS[-1] for i in images.ids])
    ids = [i for i, query in zip(images.ids, is_query, strict=True) if not query]
    found = {}
    for name, encoder in (("model", export.model), ("random_weights", export.random)):
        x = features(replace(export, model=encoder), images)
        support = (x[~is_query], images.classes[~is_query], ids)
        queries = (x[is_query], images.classes[is_query])
        hits = fewshot_hits(support, queries, SHOTS, (PENALTY,), (0, 1, 2))
        found[f"few_shot_{name}"] = dict(zip(SHOTS, hits.mean(axis=(1, 2, 3)), strict=True))
    return found


def _interval(estimate: Estimate) -> list[float]:
    """Figure, lower and upper end."""
    return [estimate.value, estimate.low, estimate.high]

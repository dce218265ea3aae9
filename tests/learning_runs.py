"""Train on a planted release and score what the model makes of its held-out images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from planted_release import recipe

from pipeline.config.train import TrainParams
from pipeline.evaluate.bootstrap import Counts, Resampling, Statistic, bootstrap, ratios
from pipeline.evaluate.export import Export, open_export
from pipeline.evaluate.features import extract, head_arrays
from pipeline.evaluate.labels import prior_logits
from pipeline.evaluate.multilabel import ImageSums, image_sums
from pipeline.evaluate.scores import LinearScores, PriorScores, Scores
from pipeline.evaluate.sets import ImageSet, held_out_set
from pipeline.train.distributed import World
from pipeline.train.loop import pretrain
from pipeline.train.release import open_release

ALONE = World(0, 1, torch.device("cpu"))
TOP_K = 3


@dataclass(frozen=True)
class Learned:
    """A finished run and what it does on held-out images.

    Attributes:
        log: lines of the run's log.
        sums: multi-label sums of the model; band "tail" is the rarer half of the labels.
        prior: the same of the prior-only baseline.
        floor: mean ln k of the held-out images.
    """

    log: list[dict[str, Any]]
    sums: ImageSums
    prior: ImageSums
    floor: float


def train(root: Path, out: Path, steps: int, seed: int = 0, sampling: str = "natural") -> Path:
    """Pretrain; returns the folder of the run."""
    params = TrainParams.model_validate(recipe(steps, seed, sampling))
    return Path(pretrain(params, str(root), str(out)).folder)


def features(export: Export, images: ImageSet) -> np.ndarray:
    """Features of a set, float32 (n, d)."""
    model = [export.model]
    found = extract(model, images, export.preprocess, 64, ALONE, lambda *_: None, 0.0)
    return found.vectors[0]


def score(root: Path, run: Path) -> Learned:
    """Multi-label sums of a run's export on the held-out part of its release."""
    export = open_export(str(run / "export"), 0, ALONE)
    release = open_release(str(root))
    held, trained = held_out_set(release, export.train.data)
    assert held.labels is not None
    model: Scores = LinearScores(features(export, held), *head_arrays(export.model))
    prior: Scores = PriorScores(prior_logits(trained.mass), len(held.ids))
    order = np.argsort(np.argsort(-trained.counts, kind="stable"))
    bands = np.where(order < len(order) // 2, 1, 3).astype(np.int8)
    sums = [image_sums(scores, held.labels, bands, TOP_K) for scores in (model, prior)]
    counts = held.labels.counts
    floor = float(np.log(counts[counts > 0]).mean())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return Learned(log, sums[0], sums[1], floor)


def column(sums: ImageSums, metric: str, band: str = "all") -> Statistic:
    """One figure of a run as a function of resampled images."""
    place = sums.names.index((metric, band))
    return ratios(sums.numerators[:, place], sums.denominators[:, place])


def mean_difference(pairs: list[tuple[Statistic, Statistic]], num: int):
    """Mean over seeds of first - second on the same images, with its interval over images."""

    def statistic(counts: Counts):
        return np.mean([first(counts) - second(counts) for first, second in pairs], axis=0)

    return bootstrap(statistic, num, Resampling(resamples=400))[0]


def rare_recall_difference(resampled: list[Learned], natural: list[Learned]):
    """Recall@3 of the rarer half of the labels: inverse-sqrt less natural, paired by seed."""
    metric = f"recall@{TOP_K}"
    pairs = [
        (column(a.sums, metric, "tail"), column(b.sums, metric, "tail"))
        for a, b in zip(resampled, natural, strict=True)
    ]
    return mean_difference(pairs, len(resampled[0].sums.numerators))


def margin_over_prior(learned: Learned):
    """Recall@3 of the model less that of the prior, over all labels."""
    metric = f"recall@{TOP_K}"
    pairs = [(column(learned.sums, metric), column(learned.prior, metric))]
    return mean_difference(pairs, len(learned.sums.numerators))


def excess_over_prior(learned: Learned):
    """Held-out excess loss of the model less that of the prior, in nats; below 0 is better."""
    pairs = [(column(learned.sums, "excess_loss"), column(learned.prior, "excess_loss"))]
    return mean_difference(pairs, len(learned.sums.numerators))

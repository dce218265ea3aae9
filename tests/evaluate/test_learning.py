"""It learns: loss to the floor, the prior beaten, the permuted control not, rare labels, shots.

More seeds: LEARNING_SEEDS=5. Larger: make bench BENCH=learning.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from evaluate_settings import STEPS
from learning_runs import (
    ALONE,
    excess_over_prior,
    features,
    margin_over_prior,
    rare_recall_difference,
    score,
    train,
)
from planted_release import tagged_folder

from pipeline.evaluate.export import open_export
from pipeline.evaluate.fewshot import fewshot_hits
from pipeline.evaluate.sets import tagged_set

SEEDS = int(os.environ.get("LEARNING_SEEDS", "1"))
"""Pairs of runs with and without resampling."""
MARGIN = 0.08
"""Recall@3 that the model must be above the prior, at the lower end of the interval."""


@pytest.fixture(scope="module")
def natural(planted, natural_run):
    return score(planted, natural_run)


def test_loss_falls_from_ln_c_towards_the_floor(natural):
    first, last = natural.log[0], natural.log[-1]
    assert first["loss"] == pytest.approx(math.log(16), rel=1e-6)
    assert first["loss"] - first["excess_loss"] == pytest.approx(natural.floor, abs=0.15)
    assert last["excess_loss"] < 0.65 * first["excess_loss"]
    assert last["excess_loss"] > 0


def test_held_out_images_are_predicted_better_than_by_the_prior(natural):
    assert margin_over_prior(natural).low > MARGIN
    assert excess_over_prior(natural).high < -0.4


def test_permuted_labels_teach_nothing(permuted, tmp_path):
    control = score(permuted, train(permuted, tmp_path, STEPS))
    found = margin_over_prior(control)
    assert found.low < 0.05
    assert found.value < MARGIN / 3
    assert excess_over_prior(control).value > -0.05


def test_resampling_raises_the_recall_of_rare_labels(planted, natural, tmp_path):
    """Seeds are paired, each with the same start weights; the interval is over held-out images."""
    resampled, plain = [], []
    for seed in range(SEEDS):
        run = train(planted, tmp_path / f"policy{seed}", STEPS, seed, "policy")
        resampled.append(score(planted, run))
        path = tmp_path / f"natural{seed}"
        plain.append(natural if seed == 0 else score(planted, train(planted, path, STEPS, seed)))
    found = rare_recall_difference(resampled, plain)
    assert found.low > 0, found


def test_few_shot_accuracy_rises_with_shots_and_above_random_weights(natural_run, tmp_path):
    images = tagged_set("textures", str(tagged_folder(tmp_path, 6, 45, others=2)))
    export = open_export(str(natural_run / "export"), 0, ALONE)
    is_query = np.array([int(i.rpartition("/")[2][:3]) >= 25 for i in images.ids])
    ids = [i for i, query in zip(images.ids, is_query, strict=True) if not query]
    accuracy = {}
    for name, encoder in (("model", export.model), ("random", export.random)):
        x = features(_with(export, encoder), images)
        hits = fewshot_hits(
            (x[~is_query], images.classes[~is_query], ids),
            (x[is_query], images.classes[is_query]),
            (1, 5, 25),
            (4.0,),
            (0, 1, 2),
        )
        accuracy[name] = hits.mean(axis=(1, 2, 3))
    one, five, many = accuracy["model"]
    assert one < five < many
    assert many > accuracy["random"][-1] + 0.1


def _with(export, encoder):
    return replace(export, model=encoder)

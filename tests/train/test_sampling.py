"""Copies of an epoch: exact counts without opening a shard, exact means, hardware plays no part."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.train import DataParams
from pipeline.kernels.resampling import total_weight
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset
from pipeline.train.release import open_release
from pipeline.train.sampling import (
    draw_shard,
    expected_images,
    sample_weights,
    shard_counts,
    shard_weights,
)
from pipeline.train.shard_index import ShardIndex

POLICY = DataParams(sampling="policy")


def index_of(weights, prefix=""):
    n = len(weights)
    zeros = np.zeros(n, np.int64)
    return ShardIndex(
        pa.array([f"{prefix}{i:032x}-000" for i in range(n)], pa.string()),
        pa.array(["jpg"] * n),
        zeros,
        zeros,
        np.empty(0, np.int32),
        np.zeros(n + 1, np.int64),
        np.array(weights, np.float32),
    )


def copies_of(weights, seed, epoch, shard=0, prefix=""):
    drawn = draw_shard(index_of(weights, prefix), np.array(weights, float), shard, seed, epoch)
    return np.bincount(drawn.row, minlength=len(weights)), drawn


@given(
    st.lists(st.floats(0, 9, width=32), min_size=0, max_size=40),
    st.integers(0, 99),
    st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_a_shard_has_as_many_appearances_as_its_sum_says(weights, seed, epoch):
    copies, drawn = copies_of(weights, seed, epoch, shard=3)
    total = np.zeros(5)
    total[3] = total_weight(np.array(weights, np.float32))
    assert len(drawn.row) == shard_counts(total, seed, epoch)[3]
    near = np.rint(np.array(weights) * 2**20) / 2**20
    assert ((copies == np.floor(near)) | (copies == np.floor(near) + 1)).all()
    assert (copies[near % 1 == 0] == near[near % 1 == 0]).all()
    for row in range(len(weights)):
        assert drawn.copy[drawn.row == row].tolist() == list(range(copies[row]))


def test_the_mean_over_epochs_is_the_weight():
    weights = np.array([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0, 1.3, 2.75, 7.01])
    epochs = 1000
    mean = np.mean([copies_of(weights, 1, e)[0] for e in range(epochs)], axis=0)
    deviation = np.sqrt(weights % 1 * (1 - weights % 1) / epochs)
    assert (np.abs(mean - weights) <= 4 * deviation + 1e-9).all()


def test_draws_differ_by_epoch_seed_and_shard_and_follow_the_key():
    weights = np.full(64, 0.5)
    first = copies_of(weights, 0, 0)[0]
    assert (first == copies_of(weights, 0, 0)[0]).all()
    others = ((1, 0, 0, ""), (0, 1, 0, ""), (0, 0, 0, "x"))
    for seed, epoch, shard, prefix in others:
        assert (first != copies_of(weights, seed, epoch, shard, prefix)[0]).any()
    shifts = {shard_counts(np.full(50, 0.5), 0, 0)[s] for s in range(50)}
    assert shifts == {0, 1}


def test_neighbours_are_drawn_together_in_some_epochs():
    """Laid end to end in one order for ever, two neighbours of weight 1/2 would exclude each other.

    In a new order each epoch, two of 64 appear together nearly as often as if independent.
    """
    weights = np.full(64, 0.5)
    both = np.mean([copies_of(weights, 0, e)[0][:2].sum() == 2 for e in range(600)])
    assert both == pytest.approx(0.25, abs=0.06)


def test_sums_come_from_the_manifest_and_else_from_the_indexes(make_release):
    root = make_release(materialised=False, weights=(2.0, 0.5, 0.3))
    release = open_release(str(root))
    told = shard_weights(release, POLICY)
    path = root / "v1/manifest.json"
    manifest = json.loads(path.read_text())
    for line in manifest["shards"]:
        del line["weight"]
    path.write_text(json.dumps(manifest))
    old = open_release(str(root))
    assert old.shards.weights is None
    assert (shard_weights(old, POLICY) == told).all()
    for shard in range(3):
        weights = sample_weights(old.read_index(shard), POLICY)
        assert shard_weights(old, POLICY)[shard] == total_weight(weights)
    assert expected_images(told + 0.25) == 31  # 11 x 2.0, 11 x 0.5, 10 x 0.3, 3 x 0.25
    assert shard_weights(release, DataParams()) is None


def test_an_epoch_shows_what_was_drawn(make_release, make_params):
    """Over a release on disk, through the loader: keys as often as drawn, less the remainder."""
    root = make_release(materialised=False, weights=(2.0, 0.5, 0.0))
    release = open_release(str(root))
    params = make_params(data={"sampling": "policy", "global_batch": 4, "lanes": 1, "chunk": 3})
    dataset = ShardDataset(release, params, 0, 1, Position())
    for epoch in (0, 1):
        drawn = {}
        for shard in range(3):
            index = release.read_index(shard)
            weights = index.weights.astype(float)
            for row in draw_shard(index, weights, shard, params.seed, epoch).row:
                key = str(index.keys[int(row)])
                drawn[key] = drawn.get(key, 0) + 1
        plan = dataset.plan(epoch)
        seen = {}
        for step in range(plan.num_steps):
            for micro in dataset.load(plan, step).micro:
                assert micro.valid.all()
                for key in micro.keys:
                    seen[key] = seen.get(key, 0) + 1
        assert sum(drawn.values()) == plan.num_samples
        assert all(seen[key] <= drawn[key] for key in seen)
        assert 0 <= sum(drawn.values()) - sum(seen.values()) < 4


def test_a_manifest_that_sums_wrongly_is_an_error(make_release, make_params):
    root = make_release(materialised=False, weights=(2.0, 0.5))
    path = root / "v1/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][1]["weight"] += 5
    path.write_text(json.dumps(manifest))
    params = make_params(data={"sampling": "policy", "global_batch": 4, "lanes": 1})
    dataset = ShardDataset(open_release(str(root)), params, 0, 1, Position())
    plan = dataset.plan(0)
    with pytest.raises(ValueError, match=r"shard-000001\.index\.parquet: weights sum to"):
        [dataset.load(plan, step) for step in range(plan.num_steps)]

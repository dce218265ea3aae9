"""What is held out is never shown, with all its copies, whatever the run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.train import DataParams
from pipeline.kernels.samples import sample_key
from pipeline.train.data import Position, ShardDataset
from pipeline.train.holdout import is_held_out, is_trained_on
from pipeline.train.release import open_release
from pipeline.train.sampling import shard_weights


def keys_of_an_epoch(dataset: ShardDataset, epoch: int) -> list[str]:
    plan = dataset.plan(epoch)
    steps = [dataset.load(plan, step) for step in range(plan.num_steps)]
    return [key for step in steps for batch in step.micro for key in batch.keys]


def test_the_share_is_held_out_copies_together_and_a_larger_share_holds_more():
    keys = [sample_key(f"image {i}", copy) for i in range(4000) for copy in range(2)]
    held = is_held_out(pa.array(keys), 0.1)
    assert held.mean() == pytest.approx(0.1, abs=0.015)
    assert np.array_equal(held[::2], held[1::2])
    assert np.array_equal(held, is_held_out(keys, 0.1))
    more = is_held_out(keys, 0.3)
    assert (more & held).sum() == held.sum() < more.sum()
    assert not is_held_out(keys, 0.0).any()


@pytest.mark.parametrize("sampling", ["natural", "policy"])
def test_held_out_images_are_never_shown_and_all_others_are(make_release, make_params, sampling):
    root = make_release(shard_sizes=(40, 25), materialised=False, weights=(1.0, 2.5, 1.0))
    release = open_release(str(root))
    data = {"holdout_share": 0.3, "sampling": sampling, "lanes": 1, "global_batch": 4}
    dataset = ShardDataset(release, make_params(data=data), 0, 1, Position())
    keys = [k for s in range(2) for k in release.read_index(s).keys.to_pylist()]
    held = set(np.array(keys)[is_held_out(keys, 0.3)])
    assert 5 < len(held) < 40
    shown = keys_of_an_epoch(dataset, 0) + keys_of_an_epoch(dataset, 1)
    assert not set(shown) & held
    weights = [1.0, 2.5, 1.0] if sampling == "policy" else [1.0] * 3
    expected = sum(weights[i % 3] for i, key in enumerate(keys) if key not in held)
    assert dataset.images_per_epoch == round(expected)
    if sampling == "natural":
        # Fewer than a batch at the end of an epoch are not shown.
        assert 0 <= 65 - len(held) - len(set(keys_of_an_epoch(dataset, 0))) < 4
        assert max(map(keys_of_an_epoch(dataset, 0).count, keys)) == 1


def test_a_shard_whose_index_is_damaged_is_masked_as_without_a_share(make_release, make_params):
    root = make_release(shard_sizes=(20, 12))
    (root / "v1/shards/shard-000001.index.parquet").write_bytes(b"damaged")
    data = {"holdout_share": 0.3, "lanes": 1, "global_batch": 4}
    dataset = ShardDataset(open_release(str(root)), make_params(data=data), 0, 1, Position())
    plan = dataset.plan(0)
    steps = [dataset.load(plan, step) for step in range(plan.num_steps)]
    failures = [line for step in steps for batch in step.micro for line in batch.failures]
    assert failures
    assert all("shard-000001" in line for line in failures)


def test_without_a_share_nothing_changes(release_root, make_params):
    release = open_release(str(release_root))
    dataset = ShardDataset(release, make_params(), 0, 1, Position())
    assert dataset.images_per_epoch == release.num_samples
    assert shard_weights(release, make_params().data) is None


def test_subsets_are_nested_and_leave_the_held_out_part_alone():
    keys = [sample_key(f"image {i}", copy) for i in range(4000) for copy in range(2)]
    held = is_held_out(keys, 0.1)
    shown = [is_trained_on(keys, DataParams(holdout_share=0.1, subset_share=s)) for s in (0.25, 1)]
    assert np.array_equal(shown[1], ~held)
    assert shown[0].sum() == pytest.approx(0.25 * 0.9 * len(keys), rel=0.08)
    assert not (shown[0] & ~shown[1]).any()
    assert np.array_equal(shown[0][::2], shown[0][1::2])


def test_an_epoch_of_a_subset_shows_each_of_its_images_once(make_release, make_params):
    release = open_release(str(make_release(shard_sizes=(40, 25))))
    data = {"subset_share": 0.5, "lanes": 1, "global_batch": 4}
    params = make_params(data=data)
    dataset = ShardDataset(release, params, 0, 1, Position())
    keys = [k for s in range(2) for k in release.read_index(s).keys.to_pylist()]
    subset = set(np.array(keys)[is_trained_on(keys, params.data)])
    assert 20 < len(subset) < 45
    shown = keys_of_an_epoch(dataset, 0)
    assert set(shown) <= subset
    assert len(set(shown)) == len(shown) > len(subset) - 4
    assert dataset.images_per_epoch == len(subset)

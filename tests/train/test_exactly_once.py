"""Every planned sample is shown once an epoch by one (rank, worker), whatever the hardware."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from pipeline.config.train import TrainParams
from pipeline.files.storage import open_storage
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset
from pipeline.train.plan import EpochPlan, PlanShape
from pipeline.train.release import Release, Shards

NUM_DRAWS = 200
PAPER = np.full(132_900, 10_000, np.int64)
"""1.329 billion images in shards of 10,000."""


def release_of(lengths):
    """A release that nobody reads."""
    line = {"sha256": "", "index": "", "index_sha256": "", "num_bytes": 0, "weight": 0.0}
    lines = [line | {"name": f"s{i}", "num_samples": int(n)} for i, n in enumerate(lengths)]
    return Release(open_storage("memory://x"), True, "natural", Shards(lines), ("a",), "", "", "")


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def drawn_case(rng):
    """Sizes as a user could set them: world divides R, workers divide G, micro-batches divide."""
    lengths = rng.integers(0, 60, rng.integers(1, 20))
    world, lanes = int(rng.integers(1, 17)), int(rng.integers(1, 9))
    ranks = world * int(rng.integers(1, 4))
    share = int(rng.integers(1, 6))
    workers = int(rng.choice([0, *divisors(lanes)]))
    batch = ranks * share
    params = TrainParams.model_validate(
        {
            "seed": int(rng.integers(1000)),
            "data": {
                "global_batch": batch,
                "virtual_ranks": ranks,
                "lanes": lanes,
                "window": int(rng.integers(1, 100)),
                "chunk": int(rng.integers(1, 90)),
            },
            "run": {"workers": workers, "micro_batch": int(rng.choice(divisors(batch // world)))},
        }
    )
    return lengths, params, world, workers, int(rng.integers(4))


def epoch_of(dataset, worker, workers, epoch):
    """(step, shard, place) columns of what one worker of one process loads in an epoch."""
    steps = dataset.steps(worker, max(workers, 1))
    mine = itertools.takewhile(lambda item: item[0].epoch == epoch, steps)
    return [(s, *(c.tolist() for c in dataset.places(plan, s))) for plan, s in mine]


def test_exactly_once_for_any_shards_and_hardware():
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(NUM_DRAWS):
        lengths, params, world, workers, epoch = drawn_case(rng)
        release, data = release_of(lengths), params.data
        start = Position(epoch, 0)
        total, unit = int(lengths.sum()), data.global_batch * data.lanes
        if total < unit:
            refused += 1
            with pytest.raises(ValueError, match=f"{total} samples an epoch, expected at least"):
                ShardDataset(release, params, 0, world, start)
            continue
        shown, batches = [], set()
        for rank in range(world):
            dataset = ShardDataset(release, params, rank, world, start)
            steps = []
            for worker in range(max(workers, 1)):
                for step, shards, places in epoch_of(dataset, worker, workers, epoch):
                    steps.append(step)
                    assert len(shards) == data.global_batch // world
                    shown += zip(shards, places, strict=True)
            assert sorted(steps) == list(range(len(steps)))
            batches.add(len(steps))
        assert batches == {total // unit * data.lanes}
        assert len(shown) == total // unit * unit
        assert len(set(shown)) == len(shown)
        assert all(place < lengths[shard] for shard, place in shown)
    assert 10 < refused < NUM_DRAWS / 2  # both kinds were drawn


def test_fewer_shards_than_workers():
    """One shard for 4 processes of 8 workers: ranges are cut over samples, not over shards."""
    values = {"data": {"global_batch": 8, "virtual_ranks": 4, "lanes": 8}, "run": {"workers": 8}}
    params = TrainParams.model_validate(values)
    release, seen = release_of([200]), []
    for rank in range(4):
        dataset = ShardDataset(release, params, rank, 4, Position())
        for worker in range(8):
            (*batches,) = epoch_of(dataset, worker, 8, 0)
            assert len(batches) == 3
            seen += [place for _, _, places in batches for place in places]
    assert len(set(seen)) == len(seen) == 192


def test_the_paper_run_on_64_ranks_of_8_workers_has_no_overlap_and_no_gap():
    """Union and exclusion at the real size without a billion look-ups.

    Each (rank, worker) owns one range, told by its first and last step (a window is a step here);
    the ranges meet without gap; positions and samples match one to one.
    """
    shape = PlanShape(8192, 64, 8, window=128, chunk=1024, seed=3)
    plan = EpochPlan(PAPER, shape, 1)
    owned = []
    for rank, worker in itertools.product(range(64), range(8)):
        steps = (worker, plan.num_steps - 8 + worker)
        first, last = (np.sort(plan.positions(step, rank)) for step in steps)
        assert (np.diff(first) == 1).all()
        assert (np.diff(last) == 1).all()
        owned.append((first[0], last[-1] + 1))
    begin, end = np.array(sorted(owned)).T
    assert begin.tolist() == [0, *end[:-1].tolist()]
    assert (end - begin == plan.num_steps // 8 * shape.share).all()
    assert 0 <= plan.num_samples - end[-1] < shape.unit
    for start in np.linspace(0, plan.num_samples - 100_000, 3).astype(np.int64):
        places = plan.locate(np.arange(start, start + 100_000))
        assert len(np.unique(places.shard * 10_000 + places.place)) == 100_000
        assert places.place.max() < 10_000


def test_windows_of_the_paper_are_permuted_inside_their_range():
    """The 32 steps of a lane that share a window of 4,096 show its samples once each, mixed."""
    plan = EpochPlan(PAPER, PlanShape(8192, 64, 8, 4096, 1024, seed=3), 1)
    for rank, lane, window in ((0, 0, 0), (63, 7, 500), (17, 3, 78)):
        steps = [8 * (32 * window + i) + lane for i in range(32)]
        parts = [plan.positions(step, rank) for step in steps if step < plan.num_steps]
        found = np.concatenate(parts)
        assert (np.diff(np.sort(found)) == 1).all()
        assert np.ptp(parts[0]) > 0.9 * len(found)


@pytest.mark.skipif("LOADER_PROOF" not in os.environ, reason="LOADER_PROOF=1: some minutes")
def test_every_one_of_1_329_billion_samples_is_located_once():
    """All positions of the epoch, a bit a sample."""
    plan = EpochPlan(PAPER, PlanShape(8192, 64, 8, 4096, 1024, seed=3), 1)
    seen = np.zeros(plan.num_samples, np.bool_)
    block = 1 << 22
    for start in range(0, plan.num_samples, block):
        places = plan.locate(np.arange(start, min(start + block, plan.num_samples)))
        seen[places.shard * 10_000 + places.place] = True
    assert seen.all()

"""The epoch plan: every sample once, in an order that only the seed and the epoch decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.train.plan import EpochPlan, PlanShape


@st.composite
def plans(draw):
    lengths = np.array(draw(st.lists(st.integers(0, 60), min_size=1, max_size=12)), np.int64)
    ranks = draw(st.sampled_from([1, 2, 3, 4]))
    shape = PlanShape(
        global_batch=ranks * draw(st.integers(1, 4)),
        virtual_ranks=ranks,
        lanes=draw(st.integers(1, 4)),
        window=draw(st.integers(1, 40)),
        chunk=draw(st.integers(1, 70)),
        seed=draw(st.integers(0, 1000)),
    )
    return lengths, shape, draw(st.integers(0, 5))


def everything(plan: EpochPlan) -> list[tuple[int, int]]:
    shown = []
    for step in range(plan.num_steps):
        for rank in range(plan.shape.virtual_ranks):
            columns = plan.samples(step, rank)
            assert len(columns.place) == plan.shape.share
            shown += list(zip(*(c.tolist() for c in columns), strict=True))
    return shown


@given(plans())
@settings(max_examples=150, deadline=None)
def test_every_sample_once_but_the_declared_remainder(case):
    lengths, shape, epoch = case
    total, unit = int(lengths.sum()), shape.global_batch * shape.lanes
    if total < unit:
        with pytest.raises(ValueError, match="global_batch x lanes"):
            EpochPlan(lengths, shape, epoch)
        return
    plan = EpochPlan(lengths, shape, epoch)
    shown = everything(plan)
    assert plan.num_steps % shape.lanes == 0
    assert len(shown) == plan.num_steps * shape.global_batch
    assert 0 <= total - len(shown) < unit
    assert len(set(shown)) == len(shown)
    assert all(0 <= place < lengths[shard] for shard, place in shown)


def test_repeatable_and_different_between_epochs_and_seeds():
    lengths = np.full(9, 50, np.int64)
    shape = PlanShape(8, 4, 2, 16, 10, seed=1)
    first = everything(EpochPlan(lengths, shape, 0))
    assert first == everything(EpochPlan(lengths, shape, 0))
    assert first != everything(EpochPlan(lengths, shape, 1))
    other = PlanShape(8, 4, 2, 16, 10, seed=2)
    assert first != everything(EpochPlan(lengths, other, 0))


def test_virtual_ranks_see_other_samples_each_epoch():
    """With one shard too: chunks move, so no virtual rank keeps a fixed subset."""
    shape = PlanShape(8, 4, 1, 64, 8, seed=0)
    lengths = np.array([400], np.int64)
    seen = []
    for epoch in (0, 1):
        plan = EpochPlan(lengths, shape, epoch)
        seen.append({int(r) for s in range(plan.num_steps) for r in plan.samples(s, 0).place})
    overlap = len(seen[0] & seen[1]) / len(seen[0])
    assert overlap < 0.6


def test_neighbours_are_mixed():
    """Samples of one step come from far apart, not from a run of neighbours."""
    plan = EpochPlan(np.full(20, 200, np.int64), PlanShape(64, 4, 2, 512, 32, seed=0), 0)
    rows = plan.samples(3, 1)
    place = np.sort(rows.shard * 200 + rows.place)
    assert np.mean(np.diff(place) == 1) < 0.2


def test_planning_a_billion_images_is_quick():
    """1.329e9 samples in 132,900 shards: any step is found without replay."""
    shape = PlanShape(8192, 64, 8, 4096, 1024, seed=0)
    plan = EpochPlan(np.full(132_900, 10_000, np.int64), shape, 1)
    assert plan.num_steps == 1_329_000_000 // (8192 * 8) * 8
    late = plan.samples(plan.num_steps - 1, 63)
    assert len(set(zip(late.shard.tolist(), late.place.tolist(), strict=True))) == 128

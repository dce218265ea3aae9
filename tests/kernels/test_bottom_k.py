"""A few members of every key: against sorting all of them, whatever the batches."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.kernels.bottom_k import BottomK, shared_budget
from pipeline.kernels.hashing import hash64


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_lowest_members_of_every_key(batch):
    rng = np.random.default_rng(0)
    ids = pa.array([f"image {i}" for i in range(100)])
    pairs = np.unique(rng.integers(0, [100, 9], (400, 2)), axis=0)
    lowest = BottomK(3, seed=5, stream="s")
    for start in range(0, 100, batch):
        mine = pairs[(pairs[:, 0] >= start) & (pairs[:, 0] < start + batch)]
        lowest.add(ids[start : start + batch], mine[:, 0] - start, mine[:, 1])
    order = hash64(ids, 5, "s")
    for key, members in lowest.members().items():
        rows = sorted(pairs[pairs[:, 1] == key, 0].tolist(), key=lambda row: order[row])
        assert members == ids.take(pa.array(rows[:3])).to_pylist()
    assert sorted(lowest.members()) == sorted(set(pairs[:, 1].tolist()))


def test_nothing_is_no_member():
    lowest = BottomK(3, seed=0, stream="s")
    lowest.add(pa.array(["a"]), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert lowest.members() == {}


def test_budget_serves_every_key_once_before_any_twice():
    members = {0: ["a", "b"], 1: ["a", "c"], 2: ["d", "b"]}
    # a serves 0 and 1, d serves 2; then one more picture is left: b, for 0 and for 2.
    assert shared_budget(members, [0, 1, 2], 3) == {0: ["a", "b"], 1: ["a"], 2: ["d", "b"]}
    assert shared_budget(members, [2, 0, 1], 1) == {2: ["d"]}
    assert shared_budget({}, [], 5) == {}

"""Retrieval against plain loops in float64: ties, own image, too few results, any block size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate.labels import share_label, to_ragged
from pipeline.evaluate.retrieval import Neighbours, nearest, precision_at_k, same_tag


def brute(queries, query_ids, index, index_ids, k):
    """Positions by sorting (cosine, id) for each query, in exact decimals where vectors tie."""
    unit = [v.astype(np.float64) / (np.linalg.norm(v.astype(np.float64)) or 1.0) for v in index]
    out = []
    for query, own in zip(queries, query_ids, strict=True):
        q = query.astype(np.float64) / (np.linalg.norm(query.astype(np.float64)) or 1.0)
        scored = [
            (-round(float(np.dot(q, v)), 6), other, i)
            for i, (v, other) in enumerate(zip(unit, index_ids, strict=True))
            if other != own
        ]
        found = [i for _, _, i in sorted(scored)[:k]]
        out.append(found + [-1] * (k - len(found)))
    return np.array(out)


def vectors(rng, num):
    """Corners of a cube: many are equal, and different ones tie exactly."""
    return rng.choice([-1.0, 1.0], (num, 3)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num=st.integers(1, 30),
    k=st.integers(1, 8),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_neighbours_are_those_of_plain_loops(seed, num, k, blocks):
    rng = np.random.default_rng(seed)
    index = vectors(rng, num)
    ids = [f"id{i:02d}" for i in rng.permutation(num)]
    queries = np.concatenate([index[: num // 2], vectors(rng, 3)])
    query_ids = [*ids[: num // 2], "new a", "new b", ids[-1]]
    found = nearest(queries, query_ids, index, ids, k, *blocks)
    assert found.positions.tolist() == brute(queries, query_ids, index, ids, k).tolist()


def test_large_random_sets_agree_with_float64_and_blocks_change_no_bit():
    rng = np.random.default_rng(5)
    index = rng.normal(size=(700, 48)).astype(np.float32)
    index[350:] = index[:350]  # every vector twice: ties everywhere
    ids = [f"{i * 7919 % 700:04d}" for i in range(700)]
    whole = nearest(index, ids, index, ids, 20)
    assert np.array_equal(whole.positions, brute(index, ids, index, ids, 20))
    parts = nearest(index, ids, index, ids, 20, 64, 90)
    assert np.array_equal(whole.positions, parts.positions)
    assert np.array_equal(whole.scores, parts.scores)
    assert (np.diff(whole.scores, axis=1) <= 0).all()


def test_scratch_does_not_grow_with_the_index():
    import tracemalloc

    rng = np.random.default_rng(0)
    peaks = []
    for num in (4_000, 16_000):
        index = rng.normal(size=(num, 8)).astype(np.float32)
        ids = [str(i) for i in range(num)]
        tracemalloc.start()
        nearest(index[:256], ids[:256], index, ids, 5, 128, 1000)
        peaks.append(tracemalloc.get_traced_memory()[1] / num)
        tracemalloc.stop()
    # A full product of 256 x 16,000 would be 1,024 bytes a row of the index; ids alone are most.
    assert peaks[1] < 600


def test_precision_by_hand():
    relevant = np.array([[True, False, True], [False, False, False], [True, True, True]])
    assert precision_at_k(relevant, 1).tolist() == [1, 0, 1]
    assert precision_at_k(relevant, 3) == pytest.approx([2 / 3, 0, 1])
    # three results, k of twenty: divided by twenty
    assert precision_at_k(relevant, 20) == pytest.approx([0.1, 0, 0.15])


def test_relevance_by_tag_and_by_shared_label():
    found = Neighbours(np.array([[1, 2, -1], [0, -1, -1]]), np.zeros((2, 3)))
    tags = np.array([7, 7, 8])
    assert same_tag(found, np.array([7, 8]), tags).tolist() == [[True, False, False], [False] * 3]
    # no result is not a result of tag -1
    assert not same_tag(found, np.array([-1, -1]), tags)[:, 1:].any()
    index = to_ragged([np.array([0, 3]), np.array([2]), np.array([], int)])
    queries = to_ragged([np.array([1, 2]), np.array([3])])
    assert share_label(found, queries, index, 4).tolist() == [
        [True, False, False],
        [True, False, False],
    ]


@pytest.mark.parametrize(
    ("ids", "k", "told"),
    [(["a", "a"], 1, "'a' twice"), (["a"], 1, "1 ids"), (["a", "b"], 0, "k = 0")],
)
def test_what_does_not_fit(ids, k, told):
    with pytest.raises(ValueError, match=told):
        nearest(np.ones((1, 2), np.float32), ["q"], np.ones((2, 2), np.float32), ids, k)


def test_empty_index():
    found = nearest(np.ones((1, 2), np.float32), ["q"], np.ones((0, 2), np.float32), [], 3)
    assert found.positions.tolist() == [[-1, -1, -1]]

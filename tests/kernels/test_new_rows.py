"""New hashes and new vectors against all: what they add is what a search of all has more."""

import numpy as np
import pytest

from pipeline.kernels import new_hashes
from pipeline.kernels.block_keys import plan_tables
from pipeline.kernels.cells import assign_cells, cosine_pairs
from pipeline.kernels.new_hashes import pairs_with_new
from pipeline.kernels.new_vectors import is_hot, new_cosine_pairs
from pipeline.kernels.vectors import l2_normalise


def crowded_hashes(rng, count):
    """Distinct hashes, most of them some bits from another."""
    hashes = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    for at in range(count // 3 + 1, count):
        flips = np.uint64(1) << rng.integers(0, 64, rng.integers(1, 9)).astype(np.uint64)
        hashes[at] = hashes[rng.integers(at)] ^ np.bitwise_xor.reduce(flips)
    return np.unique(hashes)


def slow_pairs(hashes, radius):
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= radius
    one, two = (hashes[at].tolist() for at in np.nonzero(np.triu(near, 1)))
    return set(zip(one, two, strict=True))


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_pairs_with_new_hashes_are_those_that_a_corpus_lacks(radius):
    rng = np.random.default_rng(radius)
    for count, share in ((0, 0), (1, 1), (60, 0.1), (400, 0.5), (400, 1)):
        hashes = crowded_hashes(rng, count)
        is_new = rng.random(len(hashes)) < share
        plan = plan_tables(int(is_new.sum()), radius)
        expected = slow_pairs(hashes, radius) - slow_pairs(hashes[~is_new], radius)
        found = [
            pairs_with_new(part, hashes[is_new], plan)
            for part in np.array_split(rng.permutation(hashes), 3)
        ]
        pairs = {(int(a), int(b)) for f in found for a, b in zip(f.low, f.high, strict=True)}
        assert pairs == expected
        for f in found:
            assert np.array_equal(f.distance, np.bitwise_count(f.low ^ f.high))
            assert len({*zip(f.low.tolist(), f.high.tolist(), strict=True)}) == len(f.low)


def test_the_corpus_is_never_searched_among_itself(monkeypatch):
    """A corpus of equal keys costs a comparison a new hash, not one a pair."""
    sizes = []
    real = new_hashes.near_pairs_between

    def counted(probes, stored, plan, table):
        sizes.append((len(probes), len(stored)))
        return real(probes, stored, plan, table)

    monkeypatch.setattr(new_hashes, "near_pairs_between", counted)
    corpus = np.arange(5000, dtype=np.uint64)
    plan = plan_tables(1, 2)
    found = pairs_with_new(corpus, np.array([1 << 40], np.uint64), plan)
    assert sizes == [(5000, 1)] * plan.num_tables
    assert found.low.tolist() == [0, *(1 << k for k in range(13))]


def test_new_vectors_of_a_cell_add_what_a_search_of_all_has_more():
    rng = np.random.default_rng(3)
    centroids = l2_normalise(rng.normal(size=(5, 12)))
    x = l2_normalise(centroids[rng.integers(0, 5, 300)] + rng.normal(size=(300, 12)) * 0.15)
    cells = assign_cells(x, centroids, 2)
    num_old = 0
    for cell in range(5):
        rows = np.flatnonzero(np.any(cells == cell, axis=1))
        is_new = rng.random(len(rows)) < 0.3
        every = cosine_pairs(x[rows], 0.9, cells=cells[rows], cell=cell)
        found = new_cosine_pairs(x[rows], is_new, 0.9, cells[rows], cell)
        pairs = [
            tuple(sorted(pair))
            for pair in zip(found.left.tolist(), found.right.tolist(), strict=True)
        ]
        assert len(set(pairs)) == len(pairs)
        some_new = is_new[every.left] | is_new[every.right]
        assert set(pairs) == set(
            zip(every.left[some_new].tolist(), every.right[some_new].tolist(), strict=True)
        )
        num_old += int((~some_new).sum())
    assert num_old > 100


def test_a_cell_is_hot_when_a_star_collapses():
    rng = np.random.default_rng(4)
    near = l2_normalise(np.r_[np.ones((1100, 8)), rng.normal(size=(50, 8))])
    assert is_hot(near, 0.9995)
    assert not is_hot(near[200:], 0.9995)
    assert not is_hot(near[:0], 0.9995)

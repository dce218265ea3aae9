"""Semantic pairs: exact against brute force, independent of slices and threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.cell_training import train_centroids
from pipeline.kernels.cells import (
    absorb_hot,
    assign_cells,
    cosine_pairs,
    cosine_pairs_between,
    num_cells_for,
    pair_recall,
)
from pipeline.kernels.vectors import l2_normalise


def vectors(count, width=24, seed=0, twins=0.0, noise=0.15):
    """Unit rows; a share of them are noisy copies of others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width)).astype(np.float32)
    copies = int(count * twins)
    if copies:
        x = l2_normalise(x)
        x[-copies:] = x[:copies] + noise * rng.standard_normal((copies, width)) / np.sqrt(width)
    return l2_normalise(x)


def brute(a, b, tau):
    cosine = a.astype(np.float64) @ b.astype(np.float64).T
    return set(zip(*(part.tolist() for part in np.nonzero(cosine >= tau)), strict=True))


def pairs(found):
    return list(zip(found.left.tolist(), found.right.tolist(), strict=True))


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_pairs_equal_brute_force(block):
    x = vectors(300, twins=0.4)
    want = sorted((i, j) for i, j in brute(x, x, 0.9) if i < j)
    got = cosine_pairs(x, 0.9, block=block)
    assert pairs(got) == want
    assert len(want) > 100
    np.testing.assert_allclose(
        got.cosine, np.einsum("nd,nd->n", x[got.left], x[got.right]), atol=1e-6
    )


def test_between_equals_brute_force():
    x = vectors(300, twins=0.4)
    a, b = x[:170], x[170:]
    assert pairs(cosine_pairs_between(a, b, 0.9, block=32)) == sorted(brute(a, b, 0.9))
    empty = np.zeros((0, 24), np.float32)
    assert pairs(cosine_pairs_between(a, empty, 0.9)) == []
    assert pairs(cosine_pairs(empty, 0.9)) == []


def test_threshold_by_hand():
    x = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0, 1]], dtype=np.float32)
    assert pairs(cosine_pairs(x, 0.9)) == [(1, 2)]
    assert pairs(cosine_pairs(x, 0.7)) == [(0, 2), (1, 2), (1, 3)]


def test_the_threshold_is_decided_in_float64():
    """Cosines within 1e-7 of tau: float32 products of other block shapes would disagree."""
    rng = np.random.default_rng(1)
    x = vectors(2, width=64)
    turned = []
    for k in range(400):
        other = rng.standard_normal(64)
        other -= (other @ x[0]) * x[0]
        other /= np.linalg.norm(other)
        cosine = 0.95 + (k - 200) * 1e-9
        turned.append(cosine * x[0] + np.sqrt(1 - cosine**2) * other)
    y = np.concatenate([x[:1], np.array(turned, dtype=np.float32)])
    whole = pairs(cosine_pairs_between(y[:1], y, 0.95))
    one_by_one = [
        (0, j) for j in range(len(y)) if pairs(cosine_pairs_between(y[:1], y[j : j + 1], 0.95))
    ]
    want = sorted(brute(y[:1], y, 0.95))
    assert whole == one_by_one == want
    assert 50 < len(want) < 350


@pytest.mark.parametrize("num_probes", [1, 2, 3])
def test_cells_report_each_pair_once_with_high_recall(num_probes):
    x = vectors(1500, seed=3, twins=0.45)
    centroids = train_centroids(x, 30, seed=0)
    assigned = assign_cells(x, centroids, num_probes)
    assert assigned.shape == (1500, num_probes)
    got = []
    for cell in range(30):
        rows = np.flatnonzero((assigned == cell).any(axis=1))
        found = cosine_pairs(x[rows], 0.9, cells=assigned[rows], cell=cell)
        got += zip(rows[found.left].tolist(), rows[found.right].tolist(), strict=True)
    assert len(set(got)) == len(got)
    truth = cosine_pairs(x, 0.9)
    assert set(got) <= set(pairs(truth))
    left, right = np.array(sorted(got)).T
    recall = pair_recall(left, right, truth.left, truth.right)
    assert recall >= (0, 0.75, 0.93, 0.97)[num_probes]
    half = 700
    crossed = []
    for cell in range(30):
        old = np.flatnonzero((assigned[:half] == cell).any(axis=1))
        new = np.flatnonzero((assigned[half:] == cell).any(axis=1)) + half
        found = cosine_pairs_between(
            x[old], x[new], 0.9, cells_a=assigned[old], cells_b=assigned[new], cell=cell
        )
        crossed += zip(old[found.left].tolist(), new[found.right].tolist(), strict=True)
    assert sorted(crossed) == sorted((i, j) for i, j in got if i < half <= j)


def test_assignment_is_exact_and_independent_of_slices():
    x = vectors(400, width=48, seed=5)
    centroids = train_centroids(x, 40, seed=1)
    whole = assign_cells(x, centroids, 3)
    score = x.astype(np.float64) @ centroids.astype(np.float64).T
    np.testing.assert_array_equal(whole, np.argsort(-score, axis=1, kind="stable")[:, :3])
    parts = [assign_cells(x[i : i + 13], centroids, 3) for i in range(0, 400, 13)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert assign_cells(x[:0], centroids, 3).shape == (0, 3)
    assert assign_cells(x[:2], centroids[:2], 5).shape == (2, 2)


def test_near_ties_are_decided_in_float64_however_many():
    """Sixty cells a few float32 steps apart, then equal ones: the lower cell wins a tie."""
    rng = np.random.default_rng(0)
    x = vectors(5, width=64)
    steps = rng.integers(-3, 4, (60, 64)).astype(np.float32) * np.float32(1e-8)
    centroids = np.concatenate([x[:1] + steps, x[:1], x[:1]])
    score = x.astype(np.float64) @ centroids.astype(np.float64).T
    want = np.argsort(-score, axis=1, kind="stable")[:, :2]
    np.testing.assert_array_equal(assign_cells(x[:1], centroids, 2), want[:1])
    for few in range(2, 7):  # among the nominees, at the border of the probes too
        for start in range(50):
            some = centroids[start : start + few]
            want = np.argsort(-score[:1, start : start + few], axis=1, kind="stable")
            for num_probes in range(1, few + 1):
                got = assign_cells(x[:1], some, num_probes)
                np.testing.assert_array_equal(got, want[:, :num_probes])
    assert assign_cells(x[:1], centroids[-2:].repeat(9, axis=0), 3).tolist() == [[0, 1, 2]]
    assert assign_cells(x[:0], centroids[:2], 5).shape == (0, 2)


def test_as_many_cells_as_balance_assignment_and_comparison():
    assert num_cells_for(1_000_000, 2) == 1415


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), tau=st.floats(0.2, 0.99), block=st.integers(1, 40))
def test_any_threshold(seed, tau, block):
    x = vectors(40, width=4, seed=seed)
    want = sorted((i, j) for i, j in brute(x, x, tau) if i < j)
    assert pairs(cosine_pairs(x, tau, block=block)) == want


def test_masses_of_equal_vectors_become_a_star():
    rng = np.random.default_rng(0)
    blank = np.zeros(16)
    blank[0] = 1
    mass = blank + 0.002 * rng.standard_normal((5000, 16))
    x = l2_normalise(np.concatenate([mass, rng.standard_normal((800, 16))]))
    x = x[rng.permutation(len(x))]
    leader = absorb_hot(x, 0.999)
    taken = np.flatnonzero(leader != np.arange(len(x)))
    assert len(taken) == 4999
    assert len(set(leader[taken].tolist())) == 1
    assert (leader[leader] == leader).all()
    cosine = np.einsum("nd,nd->n", x[taken], x[leader[taken]])
    assert cosine.min() >= 0.999 - 1e-6
    few = absorb_hot(x[:900], 0.999)
    np.testing.assert_array_equal(few, np.arange(900))


def test_star_of_a_mass_by_hand():
    """Rows 0 and 2 look first; 1 is just out of reach of 0; a mass of two is enough, one is not."""
    cosine = np.array([1, 0.9985, 0.9995, 0.99899, 0.99901, 0])
    x = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1).astype(np.float32)
    got = absorb_hot(x, 0.999, num_leaders=1, min_members=3)
    assert got.tolist() == [0, 1, 0, 3, 0, 5]
    got = absorb_hot(x, 0.999, num_leaders=1, min_members=4)
    assert got.tolist() == [0, 1, 2, 3, 4, 5]


def test_recall_by_hand():
    left, right = np.array([1, 5, 7]), np.array([2, 3, 6])
    assert pair_recall(left, right, np.array([2, 3, 8]), np.array([1, 5, 9])) == 2 / 3
    none = np.zeros(0, np.int64)
    assert pair_recall(none, none, none, none) == 1.0

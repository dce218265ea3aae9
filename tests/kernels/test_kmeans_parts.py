"""Start and moves of k-means against slow, exact ones."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import kmeans_refine, kmeans_start
from pipeline.kernels.kmeans_refine import cluster_sums, refine
from pipeline.kernels.kmeans_start import greedy_start


def points(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def squares(x, y):
    return ((x[:, None].astype(float) - y[None].astype(float)) ** 2).sum(2)


def inertia(x, weights, owner, k):
    centroids = cluster_sums(x, weights, owner, k)
    centroids /= np.bincount(owner, weights, k)[:, None]
    return float((weights * ((x - centroids[owner]) ** 2).sum(1)).sum())


def probabilities(x, weights, k):
    """Exact probability of every ordered choice of k rows by k-means++ with one candidate."""
    away, found = squares(x, x), {}
    for rows in itertools.permutations(range(len(x)), k):
        chance = weights[rows[0]] / weights.sum()
        for i in range(1, k):
            mass = weights * away[list(rows[:i])].min(0)
            chance *= mass[rows[i]] / mass.sum()
        found[rows] = chance
    return found


def test_draws_ahead_follow_the_exact_distribution():
    # Four candidates are drawn at once, so that later ones are older than the last centroid.
    x = np.array([[0.0], [1], [3], [4], [8], [9]], np.float32)
    weights = np.array([1.0, 2, 1, 1, 3, 1])
    want = probabilities(x, weights, 4)
    assert sum(want.values()) == pytest.approx(1)
    num = 6000
    rng = np.random.default_rng(5)
    seen = Counter(tuple(greedy_start(x, weights, 4, 1, rng)[0].tolist()) for _ in range(num))
    # Chi-square of the outcomes with at least 10 expected, and of all others as one.
    often = [rows for rows, chance in want.items() if chance * num >= 10]
    pairs = [(seen[rows], want[rows] * num) for rows in often]
    pairs.append((num - sum(s for s, _ in pairs), num - sum(w for _, w in pairs)))
    chi = sum((s - w) ** 2 / w for s, w in pairs)
    assert chi < len(pairs) + 4 * np.sqrt(2 * len(pairs))


def test_the_candidate_that_lowers_the_sum_most_is_kept():
    x = np.append(0, np.linspace(5, 10, 50)).astype(np.float32)[:, None]
    weights = np.append(1e6, np.ones(50))  # the first row is the first centroid
    away = squares(x, x)
    after = np.array([np.minimum(away[0], away[row]).sum() for row in range(51)])
    for seed in range(5):
        rows = greedy_start(x, weights, 2, 12, np.random.default_rng(seed))[0]
        assert rows[0] == 0
        assert after[rows[1]] < np.quantile(after, 0.4)


def test_start_prefers_heavy_points():
    x = np.array([[0.0], [0.1], [100.0], [100.1]], np.float32)
    heavy = np.array([1, 1, 1, 1e6])
    for seed in range(5):
        assert greedy_start(x, heavy, 1, 3, np.random.default_rng(seed))[0].tolist() == [3]
        rows = greedy_start(x, np.ones(4), 2, 3, np.random.default_rng(seed))[0]
        assert {int(r) // 2 for r in rows} == {0, 1}


@pytest.mark.parametrize("elements", [1 << 23, 1000])
def test_owner_is_the_nearest_start(elements, monkeypatch):
    monkeypatch.setattr(kmeans_start, "_BLOCK_ELEMENTS", elements)
    x = points(300, 8)
    rows, owner = greedy_start(x, np.ones(300), 80, 3, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 80
    assert owner[rows].tolist() == list(range(80))
    away = squares(x, x[rows])
    assert (away[np.arange(300), owner] <= away.min(1) + 1e-5).all()


def test_start_of_every_row_takes_every_row():
    x = points(40, 3)
    rows, owner = greedy_start(x, np.ones(40), 40, 3, np.random.default_rng(1))
    assert sorted(rows.tolist()) == list(range(40))
    assert rows[owner].tolist() == list(range(40))


def slow_refine(x, weights, owner, k):
    """The same moves in float64, every price anew in every pass."""
    owner = owner.copy()
    for _ in range(200):
        mass = np.bincount(owner, weights, k)
        sums = cluster_sums(x, weights, owner, k)
        away, w = squares(x, sums / mass[:, None]), weights[:, None]
        join = away * mass / (mass + w)
        join[np.arange(len(x)), owner] = np.inf
        rival, moved = join.argmin(1), False
        for row in range(len(x)):
            source, target, v = owner[row], rival[row], weights[row]
            if mass[source] == v or (owner == source).sum() == 1:
                continue
            if away[row, source] * mass[source] / (mass[source] - v) <= join[row, target]:
                continue
            now = np.bincount(owner, weights, k)
            at = cluster_sums(x, weights, owner, k) / now[:, None]
            leave = ((x[row] - at[source]) ** 2).sum() * now[source] / (now[source] - v)
            if leave > ((x[row] - at[target]) ** 2).sum() * now[target] / (now[target] + v):
                owner[row], moved = target, True
        if not moved:
            return owner
    raise AssertionError("no end")


@pytest.mark.parametrize("is_weighted", [False, True])
def test_moves_equal_the_slow_ones(is_weighted, monkeypatch):
    monkeypatch.setattr(kmeans_refine, "_RESTLESS", -1.0)  # everyone in every pass
    monkeypatch.setattr(kmeans_refine, "_BLOCK_ELEMENTS", 500)
    for seed in range(4):
        x = points(150, 6, seed)
        rng = np.random.default_rng(seed)
        weights = rng.integers(1, 9, 150).astype(float) if is_weighted else np.ones(150)
        owner = np.append(np.arange(25), rng.integers(0, 25, 125))
        got = refine(x, weights, owner, 25, 200)
        assert got.tolist() == slow_refine(x, weights, owner, 25).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans(), st.integers(1, 3))
def test_no_single_move_lowers_the_inertia(seed, k, is_weighted, d):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(k, 40))
    x = rng.integers(-4, 5, (n, d)).astype(np.float32)  # with copies and ties
    weights = rng.integers(1, 6, n).astype(float) if is_weighted else np.ones(n)
    owner = np.append(np.arange(k), rng.integers(0, k, n - k))
    got = refine(x, weights, owner, k, 500)
    assert np.bincount(got, minlength=k).min() > 0
    least = inertia(x, weights, got, k)
    assert least <= inertia(x, weights, owner, k) + 1e-9
    for row, target in itertools.product(range(n), range(k)):
        if (got == got[row]).sum() > 1:
            other = got.copy()
            other[row] = target
            assert inertia(x, weights, other, k) >= least - 1e-4


def test_passes_are_limited():
    x, owner = points(200, 4), np.arange(200) % 20
    sums = [inertia(x, np.ones(200), refine(x, np.ones(200), owner, 20, p), 20) for p in range(4)]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == 4

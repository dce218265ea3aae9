"""k-means inside an interest: quality against scikit-learn, stability, apportionment, names."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.kernels import kmeans
from pipeline.kernels.cluster_names import describe_clusters
from pipeline.kernels.kmeans import (
    Clustering,
    allocate_k,
    cluster_terms,
    count_distinct,
)


def term_vectors(n, d, topics, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(topics, d))
    x = centres[rng.zipf(1.3, n) % topics] + 1.5 * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def run(ids, x, k, **kwargs):
    options = {"max_iterations": 100, "num_starts": 1, "num_candidates": 3, "seed": 0} | kwargs
    return cluster_terms(np.asarray(ids), x, k, **options)


def test_inertia_is_below_scikit_learn():
    x = term_vectors(1200, 64, 200)
    ours = np.mean([run(np.arange(1200), x, 150, seed=s).inertia.sum() for s in range(3)])
    theirs = np.mean(
        [KMeans(150, init="k-means++", n_init=1, random_state=s).fit(x).inertia_ for s in range(3)]
    )
    assert ours <= theirs * 0.98


def test_three_planted_groups_by_hand():
    x = np.array([[0, 0], [10, 0], [0, 1], [10, 1], [50, 50]], np.float32)
    got = run([7, 3, 9, 2, 5], x, 3)
    assert got.term_ids.tolist() == [2, 3, 5, 7, 9]
    assert got.cluster.tolist() == [0, 0, 1, 2, 2]
    assert got.centroids.tolist() == [[10, 0.5], [50, 50], [0, 0.5]]
    assert got.inertia.tolist() == [0.5, 0, 0.5]
    weighted = run([7, 3, 9, 2, 5], x, 3, weights=np.array([3, 1, 1, 1, 2]))
    assert weighted.centroids.tolist() == [[10, 0.5], [50, 50], [0, 0.25]]
    assert weighted.inertia.tolist() == [0.5, 0, 3 / 16 + 9 / 16]


def test_row_order_does_not_matter():
    x = term_vectors(300, 16, 20)
    ids = np.random.default_rng(0).permutation(5000)[:300]
    w = np.random.default_rng(1).random(300) + 0.1
    want = run(ids, x, 30, weights=w)
    for seed in (1, 2):
        p = np.random.default_rng(seed).permutation(300)
        got = run(ids[p], x[p], 30, weights=w[p])
        for name in ("term_ids", "cluster", "distance", "centroids", "inertia"):
            assert np.array_equal(getattr(got, name), getattr(want, name)), name


def test_threads_do_not_matter(monkeypatch):
    x = term_vectors(600, 48, 40)
    threads = []
    real = kmeans.refine

    def refine(*args):
        blas = [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]
        threads.append(max(blas))
        return real(*args)

    monkeypatch.setattr(kmeans, "refine", refine)
    found = []
    for limit in (1, 2):
        with threadpool_limits(limits=limit):
            found.append(run(np.arange(600), x, 90))
    assert threads == [1, 1]
    assert np.array_equal(found[0].cluster, found[1].cluster)
    assert np.array_equal(found[0].inertia, found[1].inertia)


def test_each_term_is_nearest_to_its_own_centroid():
    x = term_vectors(400, 16, 30)
    for weights in (None, np.random.default_rng(3).integers(1, 50, 400)):
        got = run(np.arange(400), x, 60, weights=weights)
        away = ((x[:, None].astype(float) - got.centroids[None]) ** 2).sum(2)
        mine = away[np.arange(400), got.cluster]
        assert (mine <= away.min(axis=1) + 1e-6).all()


def test_clusters_are_numbered_by_smallest_term_and_centroids_are_means():
    x = term_vectors(200, 8, 10)
    got = run(np.arange(200) * 3, x, 25)
    firsts = [got.term_ids[got.cluster == c].min() for c in range(got.num_clusters)]
    assert firsts == sorted(firsts)
    for c in range(got.num_clusters):
        members = x[got.cluster == c].astype(np.float64)
        np.testing.assert_allclose(got.centroids[c], members.mean(0), atol=1e-6)
        assert got.inertia[c] == pytest.approx(((members - members.mean(0)) ** 2).sum(), rel=1e-6)


def test_more_starts_never_raise_inertia():
    x = term_vectors(200, 8, 10)
    inertia = [run(np.arange(200), x, 25, num_starts=n).inertia.sum() for n in range(1, 7)]
    assert sorted(inertia, reverse=True) == inertia
    assert inertia[-1] < inertia[0]


def test_duplicates_leave_no_cluster_empty():
    x = np.repeat(term_vectors(6, 4, 3), 5, axis=0)
    got = run(np.arange(30), x, 20)
    assert got.num_clusters == 6
    assert np.bincount(got.cluster).min() == 5
    assert got.inertia.sum() < 1e-10
    assert run(np.arange(30), np.zeros((30, 4)), 7).num_clusters == 1
    assert run(np.zeros(0, int), np.zeros((0, 4)), 7).num_clusters == 0


def test_exactly_k_clusters_come_out_and_zero_vectors_are_points_like_others():
    x = term_vectors(90, 4, 3)
    x[[5, 50, 70]] = 0
    x[80:] = x[:10]
    got = run(np.arange(90), x, 40)
    assert got.num_clusters == 40
    assert len(set(got.cluster[[5, 50, 70, 85]])) == 1
    assert np.array_equal(got.cluster[80:], got.cluster[:10])
    near_copies = np.ones((30, 4)) + 1e-7 * np.arange(30)[:, None]
    distinct = count_distinct(near_copies)
    assert 3 < distinct < 30
    assert run(np.arange(30), near_copies, 30).num_clusters == distinct


def test_no_more_centroids_are_asked_for_than_there_are_vectors(monkeypatch):
    x = np.array([[0.0, 1], [-0.0, 1], [2, 1], [0, 1]])
    assert count_distinct(x) == 2
    asked = []
    monkeypatch.setattr(
        kmeans, "greedy_start", lambda x, w, k, n, rng: asked.append(k) or (None, np.array([0, 1]))
    )
    assert run(np.arange(4), x, 4).cluster.tolist() == [0, 0, 1, 0]
    assert asked == [2]


def test_bad_input_is_refused():
    x = np.ones((3, 2))
    with pytest.raises(ValueError, match="repeated term_id"):
        run([1, 1, 2], x, 2)
    with pytest.raises(ValueError, match="found k 0"):
        run([1, 2, 3], x, 0)
    with pytest.raises(ValueError, match="NaN"):
        run([1, 2, 3], np.full((3, 2), np.nan), 2)
    with pytest.raises(ValueError, match="weights"):
        run([1, 2, 3], x, 2, weights=np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="num_starts 0"):
        run([1, 2, 3], x, 2, num_starts=0)
    with pytest.raises(ValueError, match="num_candidates 0"):
        run([1, 2, 3], x, 2, num_candidates=0)


def test_budget_by_hand():
    # 100 * (50, 30, 15, 5) / 100, then 7 of them: 3.5, 2.1, 1.05, 0.35 -> one extra to the first
    terms = np.array([50, 30, 15, 5])
    assert allocate_k(terms, terms, budget=100).tolist() == [50, 30, 15, 5]
    assert allocate_k(terms, terms, budget=7).tolist() == [3, 2, 1, 1]
    assert allocate_k(np.array([90, 0, 10]), np.array([5, 0, 10]), budget=12).tolist() == [5, 0, 7]
    assert allocate_k(np.array([3, 3]), np.array([3, 3]), budget=1).tolist() == [1, 1]
    by_size = allocate_k(np.array([9, 0, 3, 40]), np.array([9, 0, 3, 2]), terms_per_cluster=6.0)
    assert by_size.tolist() == [2, 0, 1, 2]
    for wrong in ({}, {"budget": 3, "terms_per_cluster": 2.0}, {"budget": -1}):
        with pytest.raises(ValueError, match="allocate_k"):
            allocate_k(terms, terms, **wrong)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=8),
    st.integers(1, 200),
)
def test_budget_is_kept_whenever_the_bounds_allow(sizes, budget):
    terms = np.array([a for a, _ in sizes])
    distinct = np.minimum(terms, [b for _, b in sizes])
    k = allocate_k(terms, distinct, budget=budget)
    assert ((k >= (terms > 0)) & (k <= distinct)).all()
    least, most = int((terms > 0).sum()), int(distinct.sum())
    assert k.sum() == min(max(budget, least), most)
    free = [i for i in range(len(k)) if 1 < k[i] < distinct[i]]
    quota = [Fraction(int(k[i]), int(terms[i])) for i in free]
    for i, a in zip(free, quota, strict=True):  # among unbounded interests, proportional within 1
        for j, b in zip(free, quota, strict=True):
            assert abs(a - b) <= Fraction(1, int(terms[i])) + Fraction(1, int(terms[j]))


def test_medoid_and_top_terms_by_hand():
    clustering = Clustering(
        term_ids=np.array([2, 4, 5, 8, 9], np.int32),
        cluster=np.array([0, 1, 0, 0, 1], np.int32),
        distance=np.array([0.5, 0.25, 0.5, 0.5, 0.1], np.float32),
        centroids=np.zeros((2, 3), np.float32),
        inertia=np.array([1.5, 0.35]),
    )
    rows = describe_clusters(clustering, np.array([3, 9, 7, 7, 1]), 2).to_pylist()
    assert rows == [
        {"cluster": 0, "size": 3, "medoid_term_id": 5, "top_term_ids": [5, 8], "inertia": 1.5},
        {"cluster": 1, "size": 2, "medoid_term_id": 9, "top_term_ids": [9, 4], "inertia": 0.35},
    ]

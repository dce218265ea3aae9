"""k-means inside one interest: greedy k-means++ start, Hartigan's moves, stable clusters.

At 9,000 terms of 384 dimensions and 1,400 clusters scikit-learn's Lloyd stops 4% above the inertia
that this reaches, from a start of more candidates: see `pipeline/kernels/kmeans_refine.py`. Cost:
1.4 core-seconds there, of which the start takes 0.5. Clusters grow with terms, so cost grows with
n^2 * d: by that law, not measured, 40 core-seconds at 50,000 terms and 7,800 clusters, and 15
core-minutes for all 218,879 terms of the paper in one interest. There is no bound; divide such an
interest. Memory grows with n * d, some five copies of the embeddings, and blocks of 32 MiB.

Equal inputs give equal clusters whatever the order of rows and the number of threads: rows are
sorted by term_id first, one thread computes, and clusters are numbered by their smallest term_id.
No cluster is empty, copies of a vector share one, and each term is nearest to its own centroid. A
zero vector is a point like others: distances are Euclidean, nothing is divided by its length.

Source: SPEC K2-K4; Arthur, Vassilvitskii 2007; Hartigan 1975.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.kernels.finite import require_finite
from pipeline.kernels.hashing import stream_seed
from pipeline.kernels.kmeans_refine import cluster_sums, refine
from pipeline.kernels.kmeans_start import greedy_start


@dataclass(frozen=True)
class Clustering:
    """Result of `cluster_terms`, rows ascending by term_id.

    Attributes:
        term_ids: int32 (n,), ascending.
        cluster: int32 (n,), in [0, num_clusters), clusters numbered by their smallest term_id.
        distance: float32 (n,), Euclidean, to the centroid.
        centroids: float32 (num_clusters, d), weighted means of the members.
        inertia: float64 (num_clusters,), weighted sum of squared distances.
    """

    term_ids: NDArray[np.int32]
    cluster: NDArray[np.int32]
    distance: NDArray[np.float32]
    centroids: NDArray[np.float32]
    inertia: NDArray[np.float64]

    @property
    def num_clusters(self) -> int:
        """Number of clusters, none of them empty."""
        return len(self.centroids)


def cluster_terms(
    term_ids: NDArray[np.integer],
    embeddings: NDArray[np.floating],
    k: int,
    max_iterations: int,
    num_starts: int,
    num_candidates: int,
    seed: int,
    weights: NDArray[np.floating] | None = None,
) -> Clustering:
    """Cluster the terms of one interest.

    Args:
        term_ids: (n,), without repeats, in any order.
        embeddings: (n, d), finite.
        k: wanted clusters, >= 1. That many come out; where there are fewer distinct vectors, one
            for each.
        max_iterations: passes of moves at most; they end when no move lowers the inertia.
        num_starts: runs with other starts; the one with the lowest inertia is kept, the first at
            ties.
        num_candidates: candidates of a step of the start, >= 1.
        seed: of the starts.
        weights: (n,) weight of each term, > 0; None for equal weights.

    Returns:
        See `Clustering`; empty for n = 0.

    Raises:
        ValueError: k, num_starts or num_candidates < 1, repeats, NaN, weights that are not
            positive, lengths that do not fit.
    """
    x, ids, w = _checked(term_ids, embeddings, k, num_starts, num_candidates, weights)
    if len(ids) == 0:
        none = np.zeros(0, np.int32)
        return Clustering(none, none, np.zeros(0, np.float32), x[:0], np.zeros(0, np.float64))
    first, copy_of = _distinct(x)
    points = x[first] - x[first].mean(axis=0, dtype=np.float64).astype(np.float32)
    mass = np.asarray(np.bincount(copy_of, w), np.float64)
    k = min(k, len(points))
    best: Clustering | None = None
    with threadpool_limits(limits=1):  # sums of a matrix product differ with the number of threads
        for start in range(num_starts):
            rng = np.random.default_rng([stream_seed(seed, "kmeans"), start])
            _, owner = greedy_start(points, mass, k, num_candidates, rng)
            owner = refine(points, mass, owner, k, max_iterations)
            found = _canonical(ids, x, w, owner[copy_of])
            if best is None or found.inertia.sum() < best.inertia.sum():
                best = found
    assert best is not None
    return best


def allocate_k(
    num_terms: NDArray[np.integer],
    num_distinct: NDArray[np.integer],
    budget: int | None = None,
    terms_per_cluster: float | None = None,
) -> NDArray[np.int64]:
    """Number of clusters of each interest.

    Args:
        num_terms: (L,) visual terms of each interest.
        num_distinct: (L,) distinct vectors among them, the most clusters it can have.
        budget: clusters in all, shared in proportion to num_terms by largest remainder (ties to the
            first interest). What an interest cannot take goes to the others.
        terms_per_cluster: instead of a budget: num_terms / terms_per_cluster, rounded half up.

    Returns:
        int64 (L,): 0 where there are no terms, else in [1, num_distinct].

    Raises:
        ValueError: both or none of budget and terms_per_cluster; one that is not positive.

    Source: SPEC K3.
    """
    terms, most = np.asarray(num_terms, np.int64), np.asarray(num_distinct, np.int64)
    if (budget is None) == (terms_per_cluster is None):
        raise ValueError("allocate_k: give budget or terms_per_cluster, one of the two.")
    if min(budget or 1, terms_per_cluster or 1) <= 0:
        raise ValueError(
            f"allocate_k: found budget {budget}, terms_per_cluster {terms_per_cluster}; "
            "expected > 0."
        )
    least = np.minimum((terms > 0).astype(np.int64), most)
    if terms_per_cluster is not None:
        wanted = np.floor(terms / terms_per_cluster + 0.5).astype(np.int64)
        return np.clip(wanted, least, most)
    assert budget is not None
    k = np.zeros_like(terms)
    fixed = terms == 0
    while not fixed.all():
        left = budget - int(k[fixed].sum())
        k[~fixed] = _largest_remainder(terms[~fixed], max(left, 0))
        low, high = ~fixed & (k < least), ~fixed & (k > most)
        # Settle one side at a time, the one that is further off, as in apportionment with bounds.
        if (k[high] - most[high]).sum() >= (least[low] - k[low]).sum():
            broken, bound = high, most
        else:
            broken, bound = low, least
        if not broken.any():
            break
        k[broken] = bound[broken]
        fixed = fixed | broken
    return k


def count_distinct(x: NDArray[np.floating]) -> int:
    """Number of distinct rows, bit by bit (-0.0 counts as 0.0)."""
    return len(_distinct(np.ascontiguousarray(x, np.float32))[0])


def _distinct(x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each distinct vector, ascending, and the position of each row's vector in it."""
    seen: dict[bytes, int] = {}
    copy_of = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in x + np.float32(0)])
    return np.unique(copy_of, return_index=True)[1], copy_of


def _canonical(
    ids: NDArray[np.int32],
    x: NDArray[np.float32],
    weights: NDArray[np.float64],
    raw: NDArray[np.int64],
) -> Clustering:
    """Number clusters by their smallest term_id, and measure them."""
    _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
    k = len(first)
    rank = np.empty(k, np.int32)
    rank[np.argsort(first)] = np.arange(k, dtype=np.int32)
    cluster = rank[inverse]
    mass = np.bincount(cluster, weights)
    centroids = cluster_sums(x, weights, cluster, k) / mass[:, None]
    gap = x - centroids[cluster]
    square = np.einsum("nd,nd->n", gap, gap)
    return Clustering(
        ids,
        cluster,
        np.sqrt(square).astype(np.float32),
        centroids.astype(np.float32),
        np.asarray(np.bincount(cluster, weights * square), np.float64),
    )


def _checked(
    term_ids: NDArray[np.integer],
    embeddings: NDArray[np.floating],
    k: int,
    num_starts: int,
    num_candidates: int,
    weights: NDArray[np.floating] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64]]:
    ids = np.asarray(term_ids, np.int32)
    w = np.ones(len(ids)) if weights is None else np.asarray(weights, np.float64)
    if min(num_starts, num_candidates) < 1:
        raise ValueError(
            f"cluster_terms: found num_starts {num_starts}, num_candidates {num_candidates}; "
            "expected >= 1."
        )
    if k < 1 or not len(ids) == len(embeddings) == len(w):
        raise ValueError(
            f"cluster_terms: found k {k}, {len(ids)} terms, {len(embeddings)} embeddings, "
            f"{len(w)} weights; expected k >= 1 and equal lengths."
        )
    require_finite(embeddings, "term embeddings")
    if not (np.isfinite(w) & (w > 0)).all():
        raise ValueError("cluster_terms: weights <= 0 or not finite, expected > 0.")
    order = np.argsort(ids, kind="stable")
    if np.any(ids[order][1:] == ids[order][:-1]):
        raise ValueError("cluster_terms: repeated term_id, expected each term once.")
    return np.ascontiguousarray(embeddings[order], dtype=np.float32), ids[order], w[order]


def _largest_remainder(parts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share an integer total in proportion to integer parts, in integers throughout."""
    share, remainder = np.divmod(parts * total, max(int(parts.sum()), 1))
    extra = np.argsort(-remainder, kind="stable")[: total - int(share.sum())]
    share[extra] += 1
    return share

"""Recall of approximate indexes against exact search.

Source: SPEC D16.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.retrieval import Neighbours, Vectors, nearest
from pipeline.kernels.vectors import l2_normalise, row_products


def search_ivf(
    queries: Vectors,
    query_ids: Sequence[str],
    index: Vectors,
    index_ids: Sequence[str],
    k: int,
    num_lists: int,
    num_probes: int,
) -> Neighbours:
    """Nearest rows by an inverted file of faiss, a query's own image left out.

    Args:
        queries: float32 (q, d).
        query_ids: q ids.
        index: float32 (m, d).
        index_ids: m ids.
        k: results a query.
        num_lists: cells of the inverted file, at most m.
        num_probes: cells looked into a query.

    Returns:
        positions -1 where fewer than k were found; scores in float64, computed anew.
    """
    left, right = l2_normalise(queries), l2_normalise(index)
    quantizer = faiss.IndexFlatIP(right.shape[1])
    lists = min(num_lists, len(right))
    ivf = faiss.IndexIVFFlat(quantizer, right.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.min_points_per_centroid = 1  # small sets: no warning
    ivf.train(right)
    ivf.add(right)
    ivf.nprobe = num_probes
    _, raw = ivf.search(left, min(k + 1, len(right)))
    ids = np.append(np.asarray(index_ids, dtype=np.str_), "")
    usable = (raw >= 0) & (ids[raw] != np.asarray(query_ids, dtype=np.str_)[:, None])
    order = np.argsort(~usable, axis=1, kind="stable")[:, :k]
    positions = np.full((len(left), k), -1, np.int64)
    found = np.where(np.take_along_axis(usable, order, 1), np.take_along_axis(raw, order, 1), -1)
    positions[:, : found.shape[1]] = found
    return Neighbours(positions, _scores(left, right, positions))


def _scores(left: Vectors, right: Vectors, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    scores = np.full(positions.shape, -np.inf)
    rows, columns = np.nonzero(positions >= 0)
    scores[rows, columns] = row_products(left, right, rows, positions[rows, columns])
    return scores


def recall_against(exact: Neighbours, approximate: Neighbours) -> NDArray[np.float64]:
    """Share of the exact results that an approximate search found, for each query.

    A result counts by its score: one as near as the exact k-th is right, whichever of equals it
    is.

    Args:
        exact: from ``retrieval.nearest``.
        approximate: of the same queries and k, scores in float64.

    Returns:
        float64 (q,), in [0, 1]; 1 for a query without any exact result.
    """
    wanted = (exact.positions >= 0).sum(axis=1)
    last = np.where(exact.positions >= 0, exact.scores, np.inf).min(axis=1)
    good = (approximate.positions >= 0) & (approximate.scores >= last[:, None])
    return np.where(wanted > 0, good.sum(axis=1) / np.maximum(wanted, 1), 1.0)


def ivf_recalls(
    queries: Vectors,
    query_ids: Sequence[str],
    index: Vectors,
    index_ids: Sequence[str],
    k: int,
    num_lists: int,
    probes: Sequence[int],
) -> dict[int, NDArray[np.float64]]:
    """Recall@k of an inverted file of each query, by number of cells looked into."""
    exact = nearest(queries, query_ids, index, index_ids, k)
    given = (queries, query_ids, index, index_ids, k, num_lists)
    return {number: recall_against(exact, search_ivf(*given, number)) for number in probes}

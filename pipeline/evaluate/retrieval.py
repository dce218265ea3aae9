"""Retrieval by cosine: exact blocked search, precision at k, recall of an approximate index.

Float32 products only nominate, with a margin wider than their error; nominees are multiplied again
in float64, pair by pair. So neighbours depend neither on the size of blocks nor on the processor,
and copies of one vector tie exactly, which their ids then decide.

Source: SPEC D1, D16; paper section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.cells import MARGIN
from pipeline.kernels.vectors import l2_normalise, row_products

QUERY_BLOCK, INDEX_BLOCK = 1024, 4096
"""Rows and columns of a product at once: 16 MiB of scratch, however large the index."""

Vectors = NDArray[np.float32]


class Neighbours(NamedTuple):
    """The best results of each query, best first.

    Attributes:
        positions: int64 (q, k), rows of the index; -1 where there are fewer than k results.
        scores: float64 (q, k), cosines; minus infinity there.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float64]


def nearest(
    queries: Vectors,
    query_ids: Sequence[str],
    index: Vectors,
    index_ids: Sequence[str],
    k: int,
    query_block: int = QUERY_BLOCK,
    index_block: int = INDEX_BLOCK,
) -> Neighbours:
    """The k rows of an index with the greatest cosine, exactly.

    A query's own image is no result; equal cosines are ordered by id, ascending. Memory beside
    the vectors: 16 bytes a result and one block of products.

    Args:
        queries: float32 (q, d), any length.
        query_ids: q ids.
        index: float32 (m, d).
        index_ids: m ids, distinct.
        k: results a query, >= 1.
        query_block: queries worked on at once; changes no result.
        index_block: rows worked on at once; changes no result.

    Raises:
        ValueError: ids that repeat in the index, or shapes that do not fit.
    """
    _check(queries, query_ids, index, index_ids, k)
    order, own = _by_id(query_ids, index_ids)
    left, right = l2_normalise(queries), l2_normalise(index)[order]
    positions = np.full((len(left), k), -1, np.int64)
    scores = np.full((len(left), k), -np.inf)
    for i in range(0, len(left), query_block):
        rows = slice(i, i + query_block)
        best = Neighbours(positions[rows], scores[rows])
        for j in range(0, len(right), index_block):
            pairs = _nominate(left[rows], right[j : j + index_block], own[rows] - j, best)
            exact = row_products(left[rows], right, pairs[0], pairs[1] + j)
            best = _merge(best, pairs[0], pairs[1] + j, exact)
        positions[rows], scores[rows] = best
    found = positions >= 0
    positions[found] = order[positions[found]]
    return Neighbours(positions, scores)


def _check(
    queries: Vectors, query_ids: Sequence[str], index: Vectors, index_ids: Sequence[str], k: int
) -> None:
    if k < 1:
        raise ValueError(f"nearest: k = {k}, expected >= 1.")
    if len(queries) != len(query_ids) or len(index) != len(index_ids):
        raise ValueError(
            f"nearest: {len(queries)} queries with {len(query_ids)} ids, {len(index)} rows with "
            f"{len(index_ids)} ids, expected one id a vector."
        )
    if queries.ndim != 2 or index.ndim != 2 or queries.shape[1] != index.shape[1]:
        raise ValueError(f"nearest: shapes {queries.shape} and {index.shape}, expected one width.")


def _by_id(
    query_ids: Sequence[str], index_ids: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index rows by ascending id, and each query's own place in that order, -1 without one."""
    ids = np.asarray(index_ids, dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    repeated = ranked[1:][ranked[1:] == ranked[:-1]]
    if len(repeated):
        raise ValueError(f"nearest: index id {str(repeated[0])!r} twice, expected distinct ids.")
    wanted = np.asarray(query_ids, dtype=np.str_)
    if len(ranked) == 0:
        return order, np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(ranked, wanted), len(ranked) - 1)
    return order, np.where(ranked[place] == wanted, place, -1).astype(np.int64)


def _nominate(
    left: Vectors, right: Vectors, own: NDArray[np.int64], best: Neighbours
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a block that may be among the k best."""
    products = left @ right.T
    itself = np.flatnonzero((own >= 0) & (own < len(right)))
    products[itself, own[itself]] = -np.inf
    k = best.scores.shape[1]
    floor = best.scores[:, -1].astype(np.float64)
    if len(right) >= k:
        kth = np.partition(products, len(right) - k, axis=1)[:, len(right) - k]
        floor = np.maximum(floor, kth)
    # Twice the margin: of the product that sets the floor, and of the one that is held to it.
    floor = np.maximum(floor - 2 * MARGIN, -2.0)
    rows, columns = np.nonzero(products >= floor[:, None].astype(np.float32))
    return rows, columns


def _merge(
    best: Neighbours,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> Neighbours:
    """The k best of those so far and the new ones; positions are in order of id."""
    num, k = best.positions.shape
    old_rows, old_columns = np.nonzero(best.positions >= 0)
    rows = np.concatenate([old_rows, rows])
    positions = np.concatenate([best.positions[old_rows, old_columns], positions])
    scores = np.concatenate([best.scores[old_rows, old_columns], scores])
    order = np.lexsort((positions, -scores, rows))
    rows, positions, scores = rows[order], positions[order], scores[order]
    starts = np.searchsorted(rows, np.arange(num))
    rank = np.arange(len(rows)) - starts[rows]
    kept = rank < k
    merged = Neighbours(np.full((num, k), -1, np.int64), np.full((num, k), -np.inf))
    merged.positions[rows[kept], rank[kept]] = positions[kept]
    merged.scores[rows[kept], rank[kept]] = scores[kept]
    return merged


def precision_at_k(is_relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Relevant results among the first k, over k, for each query.

    Args:
        is_relevant: bool (q, K) in order of rank, False where there is no result.
        k: cut; a query with fewer results divides by k all the same.

    Returns:
        float64 (q,), P@k; its mean is P@1 of visual search or average P@20.
    """
    return np.asarray(is_relevant[:, :k].sum(axis=1) / k)


def same_tag(
    found: Neighbours, query_tags: NDArray[np.int64], index_tags: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each result carries the query's tag (a product, a class), bool (q, k)."""
    tags = np.append(index_tags, np.int64(-1))[found.positions]
    return np.asarray((tags == query_tags[:, None]) & (found.positions >= 0))

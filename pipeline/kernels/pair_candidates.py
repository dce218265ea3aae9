"""Candidates of the verifier from every tier, capped by image.

This is the exhaustive form, by products of matrices: the benchmark's oracle, and the form for
corpora of some 10^5 images. A distributed run takes its pairs from block keys and cells and needs
:func:`cap_candidates` alone.

Source: SPEC-dataset N7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


class Candidates(NamedTuple):
    """Proposed pairs.

    Attributes:
        query: int64 (n,), ascending.
        base: int64 (n,), ascending within a query by rank, then by number.
        overflow: int64 (number of queries,), candidates of each that the cap cut off.
    """

    query: I64
    base: I64
    overflow: I64


def hash_candidates(
    queries: NDArray[np.uint64], base: NDArray[np.uint64], radius: int, block: int = 256
) -> tuple[I64, I64, I64]:
    """Pairs whose perceptual hashes lie within a radius in any of the eight turns.

    Args:
        queries: uint64 (q, 8), `turned_hashes`.
        base: uint64 (m,), upright hashes, column 0 of `turned_hashes`.
        radius: bits.
        block: queries compared at once; 64 bytes of memory for each and each of the base.

    Returns:
        query, base, distance: int64 (n,) each.
    """
    found: list[tuple[I64, I64, I64]] = []
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        near = np.full((len(part), len(base)), 64, np.uint8)
        for turn in range(part.shape[1]):
            np.minimum(near, np.bitwise_count(part[:, turn, None] ^ base), out=near)
        q, b = np.nonzero(near <= radius)
        found.append((q + start, b, near[q, b].astype(np.int64)))
    return _joined(found)


def cosine_candidates(
    queries: NDArray[np.float32], base: NDArray[np.float32], num_nearest: int, block: int = 256
) -> tuple[I64, I64, I64]:
    """The nearest of the base by cosine.

    Args:
        queries: (q, d), of length one.
        base: (m, d), of length one.
        num_nearest: neighbours of a query.
        block: queries at once.

    Returns:
        query, base, rank (0 is the nearest): int64 (n,) each. Equal cosines go by number.
    """
    found: list[tuple[I64, I64, I64]] = []
    count = min(num_nearest, len(base))
    for start in range(0, len(queries), block):
        cosine = queries[start : start + block] @ base.T
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        rows = np.repeat(np.arange(start, start + len(cosine)), count)
        ranks = np.tile(np.arange(count), len(cosine))
        found.append((rows, nearest.ravel(), ranks))
    return _joined(found)


def cap_candidates(
    tiers: list[tuple[I64, I64, I64]], num_queries: int, max_candidates: int
) -> Candidates:
    """Union of the tiers, the best of each first, at most so many a query.

    Args:
        tiers: of each tier query, base and order (a distance or rank, lower is better). Tiers take
            turns: a pair's place is its best place in any tier.
        num_queries: queries there are.
        max_candidates: of one query.
    """
    placed = [(q, b, _places(q, b, order)) for q, b, order in tiers]
    query, base, place = _joined(placed)
    by_pair = np.lexsort((place, base, query))
    query, base, place = query[by_pair], base[by_pair], place[by_pair]
    first = np.ones(len(query), bool)
    first[1:] = (query[1:] != query[:-1]) | (base[1:] != base[:-1])
    query, base, place = query[first], base[first], place[first]
    place = _places(query, base, place)
    kept = place < max_candidates
    overflow = np.bincount(query[~kept], minlength=num_queries).astype(np.int64)
    query, base, place = query[kept], base[kept], place[kept]
    order = np.lexsort((place, query))
    return Candidates(query[order], base[order], overflow)


def _places(query: I64, base: I64, order: I64) -> I64:
    """Place of each pair among those of its query, by order, ties by number of the base."""
    by = np.lexsort((base, order, query))
    ordered = query[by]
    place = np.empty(len(query), np.int64)
    place[by] = np.arange(len(query)) - np.searchsorted(ordered, ordered, side="left")
    return place


def _joined(parts: list[tuple[I64, I64, I64]]) -> tuple[I64, I64, I64]:
    if not parts:
        return (np.zeros(0, np.int64),) * 3
    q, b, order = (np.concatenate(columns).astype(np.int64) for columns in zip(*parts, strict=True))
    return q, b, order

"""All pairs of 64-bit hashes within a Hamming radius, one table of block-permuted keys at a time.

The bits of a table's key are moved to the top and the values sorted: hashes that share a key are
then neighbours, and distances can be taken on the permuted values. No order of rows is carried
along, so the sort is a plain sort of integers. A pair is reported by the first table that has it.

Memory: three times the hashes given plus ``block`` rows of scratch and the pairs found. Time, one
core: ~60 ns a hash and table, ~1.5 ns a candidate. A million copies of one picture are one hash
here (``split_firsts`` keeps their names). A key shared by very many distinct
hashes is searched again by the bits outside the key, with its own tables, not by all pairs.

Source: Manku, Jain, Das Sarma 2007; SPEC-dataset N2, N3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.block_keys import (
    TablePlan,
    first_match,
    permute,
    plan_tables,
    unpermute,
)

__all__ = ["NearHashes", "NearPairs", "near_hashes", "near_pairs", "near_pairs_between"]

BLOCK = 1 << 16
"""Rows of scratch: fits the second-level cache."""
_LONG_RUN = 512
"""Runs of equal keys longer than this are searched by their own tables."""
_TILE = 512
"""Side of the square of comparisons done at once in short long runs."""
_DENSE = 0.3
"""Share of the values below which those with a longer run are picked out."""
_INDEX_BITS = 20
"""Bits of the direct index over a sorted table."""

_Values = NDArray[np.uint64]
_Pairs = tuple[_Values, _Values]


class NearPairs(NamedTuple):
    """Pairs as positions. ``left < right`` in a self-join. int64, int64, uint8 (all (n,))."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distance: NDArray[np.uint8]


class NearHashes(NamedTuple):
    """Pairs as hashes, ``low < high`` as unsigned integers. uint64, uint64, uint8 (all (n,))."""

    low: NDArray[np.uint64]
    high: NDArray[np.uint64]
    distance: NDArray[np.uint8]


def near_hashes(
    hashes: NDArray[np.uint64], plan: TablePlan, table: int, *, block: int = BLOCK
) -> NearHashes:
    """Pairs within the radius that this table is the first to have.

    Args:
        hashes: uint64 (n,): whole corpus, or any part that holds all hashes of its keys. Repeats
            count once.
        plan: from ``plan_tables``.
        table: 0 to ``plan.num_tables`` - 1.
        block: rows compared at once.

    Returns:
        Pairs ordered by (low, high). The union over tables is every pair within the radius, once.
    """
    parts = list(_table_pairs(hashes, plan, table, block))
    one = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.uint64)])
    two = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.uint64)])
    low, high = np.minimum(one, two), np.maximum(one, two)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    return NearHashes(low, high, np.bitwise_count(low ^ high))


def near_pairs(
    hashes: NDArray[np.uint64], plan: TablePlan, table: int, *, block: int = BLOCK
) -> NearPairs:
    """``near_hashes`` as positions in ``hashes``, ordered by (left, right).

    Raises:
        ValueError: a hash occurs twice.
    """
    order = np.argsort(hashes)
    ordered = hashes[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        raise ValueError("hashes: a value occurs twice, expected distinct ones (collapse first)")
    found = near_hashes(hashes, plan, table, block=block)
    if not len(found.low):
        none = np.zeros(0, np.int64)
        return NearPairs(none, none, found.distance)
    one = order[np.searchsorted(ordered, found.low)]
    two = order[np.searchsorted(ordered, found.high)]
    left, right = np.minimum(one, two), np.maximum(one, two)
    by = np.lexsort((right, left))
    return NearPairs(left[by], right[by], found.distance[by])


def near_pairs_between(
    probes: NDArray[np.uint64],
    stored: NDArray[np.uint64],
    plan: TablePlan,
    table: int,
    *,
    block: int = BLOCK,
) -> NearPairs:
    """Pairs of one probe and one stored hash within the radius, by the first table that has them.

    Args:
        probes: uint64 (n,), the large side (a slice of the corpus); may repeat.
        stored: uint64 (m,), the side that is indexed (validation, blocked, or an older corpus);
            distinct, or a hot hash pairs with all its copies.
        plan: from ``plan_tables(len(stored), radius)``.
        table: 0 to ``plan.num_tables`` - 1.
        block: probes and candidates compared at once.

    Returns:
        ``left``: position in ``probes``; ``right``: position in ``stored``; ordered by both.
    """
    moved = permute(stored, plan, table)
    order = np.argsort(moved, kind="stable")
    ordered = moved[order]
    index_bits = min(plan.key_bits[table], _INDEX_BITS)
    shift = np.uint64(plan.width - index_bits)
    starts = np.searchsorted(ordered >> shift, np.arange((1 << index_bits) + 1, dtype=np.uint64))
    limit = np.uint64((1 << (plan.width - plan.key_bits[table])) - 1)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], _Values]] = []
    for begin in range(0, len(probes), block):
        chunk = permute(probes[begin : begin + block], plan, table)
        slot = (chunk >> shift).astype(np.int64)
        first, count = starts[slot], starts[slot + 1] - starts[slot]
        for rows, at in _expand(first, count, block):
            difference = chunk[rows] ^ ordered[at]
            hit = (difference <= limit) & (np.bitwise_count(difference) <= plan.radius)
            found.append((rows[hit] + begin, order[at[hit]], difference[hit]))
    left, right, difference = _concatenate(found)
    fresh = first_match(unpermute(difference, plan, table), plan, table)
    left, right, difference = left[fresh], right[fresh], difference[fresh]
    by = np.lexsort((right, left))
    return NearPairs(left[by], right[by], np.bitwise_count(difference[by]))


def _expand(
    first: NDArray[np.int64], count: NDArray[np.int64], block: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(row, position) of every candidate, about ``block`` at a time.

    A row with more candidates than ``block`` is cut, so the scratch stays bounded.
    """
    rows = np.flatnonzero(count)
    first, count = first[rows], count[rows]
    while len(rows):
        ends = np.cumsum(np.minimum(count, block))
        take = max(1, int(np.searchsorted(ends, block, side="right")))
        size = np.minimum(count[:take], block)
        offset = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        yield np.repeat(rows[:take], size), np.repeat(first[:take], size) + offset
        rest = count[take - 1] - size[-1]
        if rest:
            first[take - 1] += size[-1]
            count[take - 1] = rest
            take -= 1
        rows, first, count = rows[take:], first[take:], count[take:]


def _concatenate(
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], _Values]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], _Values]:
    none = np.zeros(0, np.int64)
    return (
        np.concatenate([none, *(part[0] for part in found)]),
        np.concatenate([none, *(part[1] for part in found)]),
        np.concatenate([np.zeros(0, np.uint64), *(part[2] for part in found)]),
    )


def _table_pairs(values: _Values, plan: TablePlan, table: int, block: int) -> Iterator[_Pairs]:
    """Pairs of one table in the bit order of ``values``."""
    ordered = np.empty(len(values), dtype=np.uint64)
    for begin in range(0, len(values), block):
        ordered[begin : begin + block] = permute(values[begin : begin + block], plan, table)
    ordered.sort()
    repeats = ordered[1:] == ordered[:-1]
    if repeats.any():
        ordered = ordered[np.concatenate([[True], ~repeats])]
    if plan.radius == 0:
        return
    free = plan.width - plan.key_bits[table]
    for one, two in _run_pairs(ordered, free, plan.radius, block):
        fresh = first_match(unpermute(one ^ two, plan, table), plan, table)
        if fresh.any():
            yield unpermute(one[fresh], plan, table), unpermute(two[fresh], plan, table)


def _run_pairs(ordered: _Values, free: int, radius: int, block: int) -> Iterator[_Pairs]:
    """Pairs within the radius among sorted values equal above their lowest ``free`` bits."""
    key_shift = np.uint64(free)
    is_short = np.ones(len(ordered), dtype=np.bool_)
    for begin, end in _long_runs(ordered, key_shift):
        is_short[begin:end] = False
        base = ordered[begin] >> key_shift << key_shift
        for one, two in _long_run_pairs(ordered[begin:end] - base, free, radius, block):
            yield one | base, two | base
    limit = np.uint64((1 << free) - 1)
    for begin in range(0, len(ordered), block):
        end = min(begin + block, len(ordered))
        yield from _short_run_pairs(ordered, is_short, begin, end, limit, radius)


def _short_run_pairs(
    ordered: _Values,
    is_short: NDArray[np.bool_],
    begin: int,
    end: int,
    limit: np.uint64,
    radius: int,
) -> Iterator[_Pairs]:
    """Pairs whose first is at begin to end: with the next value, the one after it, and so on.

    A value whose run has ended takes no further part. While most still do, all are compared in
    place, which is twice as fast as picking them out.
    """
    step, here = 1, None
    taking = is_short[begin:end]
    while begin < end:
        end = min(end, len(ordered) - step)
        if here is None:
            one, two = ordered[begin:end], ordered[begin + step : end + step]
        else:
            here = here[: np.searchsorted(here, end)]
            one, two = ordered[here], ordered[here + step]
        difference = one ^ two
        taking = taking[: len(one)] & (difference <= limit)
        num_taking = np.count_nonzero(taking)
        if not num_taking:
            return
        near = np.flatnonzero(taking & (np.bitwise_count(difference) <= radius))
        if len(near):
            yield one[near], two[near]
        if here is not None:
            here, taking = here[taking], taking[taking]
        elif num_taking < _DENSE * len(one):
            here, taking = begin + np.flatnonzero(taking), taking[taking]
        step += 1


def _long_runs(ordered: _Values, key_shift: np.uint64) -> list[tuple[int, int]]:
    """(begin, end) of runs of more than ``_LONG_RUN`` equal keys."""
    if len(ordered) <= _LONG_RUN:
        return []
    keys = ordered >> key_shift
    inside = np.flatnonzero(keys[_LONG_RUN:] == keys[:-_LONG_RUN])
    if not len(inside):
        return []
    hot = np.unique(keys[inside])
    begins = np.searchsorted(keys, hot)
    ends = np.searchsorted(keys, hot, side="right")
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _long_run_pairs(values: _Values, free: int, radius: int, block: int) -> Iterator[_Pairs]:
    """Pairs among many distinct values of ``free`` bits: tables of their own, or all pairs."""
    if free > radius + 1 and len(values) > 4 * _LONG_RUN:
        plan = plan_tables(len(values), radius, width=free)
        # Tables must beat all pairs clearly, else the bits left are too few to cut further.
        if plan.candidates_per_probe < len(values) / 4:
            for table in range(plan.num_tables):
                yield from _table_pairs(values, plan, table, block)
            return
    for i in range(0, len(values), _TILE):
        one = values[i : i + _TILE]
        for j in range(i, len(values), _TILE):
            two = values[j : j + _TILE]
            near = np.bitwise_count(one[:, None] ^ two) <= radius
            if i == j:
                near &= np.tri(len(one), dtype=np.bool_, k=-1).T
            rows, columns = np.nonzero(near)
            if len(rows):
                yield one[rows], two[columns]

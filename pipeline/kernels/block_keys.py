"""Which bits of a hash must agree: tables of block-permuted keys for a Hamming radius.

The bits are cut into parts, and the radius r is shared out among them: part i tolerates r_i, with
the sum of r_i + 1 equal to r + 1. Two hashes within r cannot differ in more than r_i bits of every
part, or they would differ in r + 1: in some part they differ in at most r_i. That part is cut into
m_i blocks, of which at least m_i - r_i agree; with one table for each choice of m_i - r_i blocks,
every pair within the radius meets in a table: recall is 1 by construction. One part is the scheme
of Manku et al., parts that tolerate nothing are multi-index hashing. Two parts of 32 bits that
tolerate 1 each find radius 3 with 6 tables of 21-bit keys, where one part needs 10.

Longer keys mean fewer chance candidates and more tables: parts, widths and blocks follow from the
number of hashes and the radius by a cost model, exactly minimised (a sum over parts: min-plus).

Source: Manku, Jain, Das Sarma 2007, section 3; Norouzi, Punjani, Fleet 2012; SPEC-dataset N2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_RADIUS = 8
MAX_TABLES = 512
"""Of one part."""

ROW_NANOSECONDS = 250.0
"""Processor time of one hash in one table: route, pack, shuffle, sort, scan (of 10M hashes)."""
CANDIDATE_NANOSECONDS = 1.5
"""Processor time of one comparison inside a run (measured 1.2 to 3)."""
CROWDING = 4.0
"""Candidates of photos over those of random bits: neighbouring coefficients go together. Measured
on 20,412 photos: keys of 16 bits agree 1.5 to 3 times as often, keys of 24 bits 2.3 to 18 times."""


class Part(NamedTuple):
    """A stretch of the hash, cut into equal blocks of which all but ``radius`` must agree."""

    width: int
    num_blocks: int
    radius: int


@dataclass(frozen=True)
class TablePlan:
    """The tables for one corpus size and radius.

    Attributes:
        radius: largest Hamming distance that is found.
        width: bits of a hash, counted from the lowest.
        parts: from the lowest bit; the sum of their radii plus their number is ``radius`` + 1.
        num_hashes: corpus size the plan was made for.
    """

    radius: int
    width: int
    parts: tuple[Part, ...]
    num_hashes: int

    @cached_property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """(lowest bit, number of bits) of each block of all parts, ascending."""
        found: list[tuple[int, int]] = []
        start = 0
        for part in self.parts:
            edges = [start + part.width * b // part.num_blocks for b in range(part.num_blocks + 1)]
            found += [(low, high - low) for low, high in pairwise(edges)]
            start += part.width
        return tuple(found)

    @cached_property
    def chosen(self) -> tuple[tuple[int, ...], ...]:
        """For each table the blocks that must agree, ascending."""
        found: list[tuple[int, ...]] = []
        first = 0
        for part in self.parts:
            own = range(first, first + part.num_blocks)
            found += combinations(own, part.num_blocks - part.radius)
            first += part.num_blocks
        return tuple(found)

    @property
    def num_tables(self) -> int:
        """Passes over the hashes."""
        return len(self.chosen)

    @cached_property
    def masks(self) -> NDArray[np.uint64]:
        """uint64 (num_tables,): the bits that must agree."""
        values = [
            sum(((1 << size) - 1) << low for low, size in (self.blocks[b] for b in table))
            for table in self.chosen
        ]
        return np.array(values, dtype=np.uint64)

    @cached_property
    def key_bits(self) -> tuple[int, ...]:
        """Length of each table's key."""
        return tuple(sum(self.blocks[b][1] for b in table) for table in self.chosen)

    @property
    def candidates_per_probe(self) -> float:
        """Expected random hashes that share a key with a given one, all tables together."""
        return float(sum(self.num_hashes / 2.0**bits for bits in self.key_bits))

    @property
    def explanation(self) -> str:
        """One line for the log."""
        low, high = min(self.key_bits), max(self.key_bits)
        bits = str(low) if low == high else f"{low}-{high}"
        parts = "+".join(
            f"{p.num_blocks - p.radius}of{p.num_blocks}({p.width})" for p in self.parts
        )
        return (
            f"num_hashes={self.num_hashes} radius={self.radius} agreeing_blocks={parts} "
            f"tables={self.num_tables} key_bits={bits} "
            f"candidates_per_probe={self.candidates_per_probe:.3g}"
        )


def plan_tables(num_hashes: int, radius: int, *, width: int = 64) -> TablePlan:
    """Choose parts and blocks with the least expected time for one self-join.

    Args:
        num_hashes: distinct hashes that are searched (for a join of two sets: of the stored one).
        radius: largest Hamming distance to find, 0 to 8.
        width: bits of a hash, more than ``radius``.

    Raises:
        ValueError: radius or width out of range.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius: {radius}, expected 0 to {MAX_RADIUS}")
    if not radius < width <= 64:
        raise ValueError(f"width: {width} bits, expected more than the radius {radius}, at most 64")
    num_hashes = max(int(num_hashes), 1)
    return TablePlan(radius, width, _cheapest_parts(num_hashes, radius, width), num_hashes)


@lru_cache(maxsize=256)
def _cheapest_parts(num_hashes: int, radius: int, width: int) -> tuple[Part, ...]:
    """Parts of least cost, the widest and most tolerant first.

    ``best[s][w]`` is the least cost of sharing s = radius + 1 out over w bits: a first part takes
    some of both, the rest is the same question again.
    """
    shares = radius + 1
    cost, blocks = _part_costs(num_hashes, shares, width)
    best = np.full((shares + 1, width + 1), np.inf)
    best[0, 0] = 0.0
    first: dict[tuple[int, int], tuple[int, int]] = {}
    for share in range(1, shares + 1):
        for bits in range(1, width + 1):
            own = range(1, share + 1)
            # of the first part: s shares and w bits; what is left costs best[share - s, bits - w]
            total = np.array([cost[s, 1 : bits + 1] + best[share - s, bits - 1 :: -1] for s in own])
            at = int(np.argmin(total))
            best[share, bits] = total.flat[at]
            first[share, bits] = at // bits + 1, at % bits + 1
    parts: list[Part] = []
    while shares:
        share, bits = first[shares, width]
        parts.append(Part(bits, int(blocks[share, bits]), share - 1))
        shares, width = shares - share, width - bits
    return tuple(sorted(parts, key=lambda part: (-part.radius, -part.width)))


def _part_costs(
    num_hashes: int, shares: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Nanoseconds a hash, and blocks, of the best part with radius s - 1 and w bits: at [s, w]."""
    cost = np.full((shares + 1, width + 1), np.inf)
    blocks = np.zeros((shares + 1, width + 1), np.int64)
    for share in range(1, shares + 1):
        radius = share - 1
        for num_blocks in range(share, width + 1 if radius else 2):
            tables = math.comb(num_blocks, radius)
            if tables > MAX_TABLES and num_blocks > share:
                break
            bits = np.arange(width + 1)
            key = bits * (num_blocks - radius) / num_blocks
            candidates = CROWDING * num_hashes / 2 * 2.0**-key
            found = tables * (ROW_NANOSECONDS + candidates * CANDIDATE_NANOSECONDS)
            better = (bits >= num_blocks) & (found < cost[share])
            cost[share, better], blocks[share, better] = found[better], num_blocks
    return cost, blocks


def table_keys(hashes: NDArray[np.uint64], plan: TablePlan, table: int) -> NDArray[np.uint64]:
    """Key of each hash in one table, the agreeing bits packed together.

    Args:
        hashes: uint64 (n,).

    Returns:
        uint64 (n,), below ``2 ** plan.key_bits[table]``. Rows of a table that share a key must
        meet in one call of ``near_pairs``; rows of different keys need not.
    """
    free = plan.width - plan.key_bits[table]
    return np.asarray(permute(hashes, plan, table) >> np.uint64(free), dtype=np.uint64)


def table_routes(
    hashes: NDArray[np.uint64], plan: TablePlan, table: int, num_routes: int
) -> NDArray[np.int64]:
    """Spread the keys of one table over tasks: hashes of equal key get one route.

    Args:
        hashes: uint64 (n,).
        num_routes: 1 to 2^31.

    Returns:
        int64 (n,), from 0 to ``num_routes`` - 1: the key's product with 2^64 over the golden ratio,
        scaled (Knuth 1998, section 6.4).
    """
    spread = hashes & plan.masks[table]
    spread *= np.uint64(0x9E3779B97F4A7C15)
    spread >>= np.uint64(33)
    spread *= np.uint64(num_routes)
    spread >>= np.uint64(31)
    return np.asarray(spread.view(np.int64), np.int64)


def permute(hashes: NDArray[np.uint64], plan: TablePlan, table: int) -> NDArray[np.uint64]:
    """Move the agreeing bits of a table to the top; Hamming distances stay.

    Returns:
        uint64 (n,): key in the highest ``key_bits`` of ``width`` bits, the other bits below.
    """
    return _move(hashes, [(low, new, size) for low, new, size in _moves(plan, table)])


def unpermute(values: NDArray[np.uint64], plan: TablePlan, table: int) -> NDArray[np.uint64]:
    """Inverse of ``permute``."""
    return _move(values, [(new, low, size) for low, new, size in _moves(plan, table)])


def first_match(differences: NDArray[np.uint64], plan: TablePlan, table: int) -> NDArray[np.bool_]:
    """Whether no earlier table has the pair as well, so that it is reported once.

    Args:
        differences: uint64 (n,), the XOR of each pair.
    """
    fresh = np.ones(len(differences), dtype=np.bool_)
    for mask in plan.masks[:table]:
        fresh &= (differences & mask) != 0
    return fresh


def _moves(plan: TablePlan, table: int) -> list[tuple[int, int, int]]:
    """(lowest bit now, lowest bit then, number of bits), neighbours that move alike joined."""
    chosen = plan.chosen[table]
    rest = [b for b in range(len(plan.blocks)) if b not in chosen]
    moves: list[tuple[int, int, int]] = []
    at = 0
    for block in (*rest, *chosen):
        low, size = plan.blocks[block]
        if moves and moves[-1][0] + moves[-1][2] == low:
            moves[-1] = (moves[-1][0], moves[-1][1], moves[-1][2] + size)
        else:
            moves.append((low, at, size))
        at += size
    return moves


def _move(values: NDArray[np.uint64], moves: list[tuple[int, int, int]]) -> NDArray[np.uint64]:
    out = np.zeros_like(values)
    for low, new, size in moves:
        part = values & np.uint64(((1 << size) - 1) << low)
        if new > low:
            part <<= np.uint64(new - low)
        elif new < low:
            part >>= np.uint64(low - new)
        out |= part
    return out

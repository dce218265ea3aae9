"""Which bits of a hash must agree: tables of block-permuted keys for a Hamming radius.

A hash of ``width`` bits is cut into m blocks. Two hashes within radius r differ in at most r of
them, so at least m - r blocks agree; with one table for each choice of m - r blocks, every such
pair meets in a table: recall is 1 by construction. More blocks mean longer keys (fewer chance
candidates) and more tables: m follows from the number of hashes and the radius by a cost model.

Source: Manku, Jain, Das Sarma 2007, section 3; SPEC-dataset N2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

MAX_RADIUS = 8
MAX_TABLES = 512

ROW_NANOSECONDS = 100.0
"""Cost of one hash in one table: route, permute, sort, scan (measured 90 to 120 at 10M hashes)."""
CANDIDATE_NANOSECONDS = 2.0
"""Cost of one comparison inside a run (measured 1.2 to 3)."""


@dataclass(frozen=True)
class TablePlan:
    """The tables for one corpus size and radius.

    Attributes:
        radius: largest Hamming distance that is found.
        width: bits of a hash, counted from the lowest.
        blocks: (lowest bit, number of bits) of each block, ascending.
        chosen: for each table the blocks that must agree, ascending.
        num_hashes: corpus size the plan was made for.
    """

    radius: int
    width: int
    blocks: tuple[tuple[int, int], ...]
    chosen: tuple[tuple[int, ...], ...]
    num_hashes: int

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
        """Expected hashes that share a key with a given one by chance, all tables together."""
        return float(sum(self.num_hashes / 2.0**bits for bits in self.key_bits))

    @property
    def explanation(self) -> str:
        """One line for the log."""
        low, high = min(self.key_bits), max(self.key_bits)
        bits = str(low) if low == high else f"{low}-{high}"
        return (
            f"num_hashes={self.num_hashes} radius={self.radius} blocks={len(self.blocks)} "
            f"agreeing={len(self.blocks) - self.radius} tables={self.num_tables} "
            f"key_bits={bits} candidates_per_probe={self.candidates_per_probe:.3g}"
        )


def plan_tables(
    num_hashes: int, radius: int, *, width: int = 64, max_tables: int = MAX_TABLES
) -> TablePlan:
    """Choose the number of blocks with the least expected time for one self-join.

    Args:
        num_hashes: distinct hashes that are searched (for a join of two sets: of the stored one).
        radius: largest Hamming distance to find, 0 to 8.
        width: bits of a hash, more than ``radius``.
        max_tables: upper bound on passes.

    Raises:
        ValueError: radius or width out of range.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius: {radius}, expected 0 to {MAX_RADIUS}")
    if not radius < width <= 64:
        raise ValueError(f"width: {width} bits, expected more than the radius {radius}, at most 64")
    num_hashes = max(int(num_hashes), 1)
    if radius == 0:
        return TablePlan(0, width, ((0, width),), ((0,),), num_hashes)
    best: tuple[float, TablePlan] | None = None
    for num_blocks in range(radius + 1, width + 1):
        if math.comb(num_blocks, radius) > max_tables and best is not None:
            break
        plan = _plan(num_hashes, radius, width, num_blocks)
        nanoseconds = (
            plan.num_tables * ROW_NANOSECONDS
            + plan.candidates_per_probe / 2 * CANDIDATE_NANOSECONDS
        )
        if best is None or nanoseconds < best[0]:
            best = nanoseconds, plan
    assert best is not None
    return best[1]


def _plan(num_hashes: int, radius: int, width: int, num_blocks: int) -> TablePlan:
    edges = [width * b // num_blocks for b in range(num_blocks + 1)]
    blocks = tuple((low, high - low) for low, high in pairwise(edges))
    chosen = tuple(combinations(range(num_blocks), num_blocks - radius))
    return TablePlan(radius, width, blocks, chosen, num_hashes)


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

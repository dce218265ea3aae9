"""Candidates by hash and cosine against loops, and the cap worked by hand."""

from __future__ import annotations

import numpy as np

from pipeline.kernels.pair_candidates import cap_candidates, cosine_candidates, hash_candidates


def test_hash_candidates_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    queries = rng.integers(0, 2**63, (30, 8), dtype=np.uint64)
    queries[3, 5] = base[7] ^ np.uint64(0b111)
    wanted = [
        (q, b, d)
        for q in range(30)
        for b in range(40)
        if (d := min((int(h) ^ int(base[b])).bit_count() for h in queries[q])) <= 22
    ]
    found = hash_candidates(queries, base, 22, block=7)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == wanted
    assert (3, 7, 3) in wanted


def test_cosine_candidates_equal_a_loop() -> None:
    rng = np.random.default_rng(1)
    queries, base = (rng.standard_normal((n, 5)).astype(np.float32) for n in (9, 12))
    query, found, rank = cosine_candidates(queries, base, 3, block=4)
    for q in range(9):
        wanted = sorted(range(12), key=lambda b: (-float(queries[q] @ base[b]), b))[:3]
        mine = query == q
        assert found[mine].tolist() == wanted
        assert rank[mine].tolist() == [0, 1, 2]


def test_the_cap_takes_the_best_of_each_tier_in_turn() -> None:
    def tier(*rows: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
        return tuple(np.array(column, np.int64) for column in zip(*rows, strict=True))

    hashes = tier((0, 5, 9), (0, 6, 2), (0, 7, 11), (2, 1, 0))
    cosines = tier((0, 8, 0), (0, 6, 1), (0, 9, 2))
    # Places by hash 6, 5, 7; by cosine 8, 6, 9. Best places: 6 and 8 (0), 5 (1), 7 and 9 (2).
    found = cap_candidates([hashes, cosines], num_queries=3, max_candidates=3)
    assert found.query.tolist() == [0, 0, 0, 2]
    assert found.base.tolist() == [6, 8, 5, 1]
    assert found.overflow.tolist() == [2, 0, 0]


def test_no_candidates_at_all() -> None:
    found = cap_candidates([], num_queries=2, max_candidates=3)
    assert len(found.query) == 0
    assert found.overflow.tolist() == [0, 0]

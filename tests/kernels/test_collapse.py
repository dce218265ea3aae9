"""Rows of one hash: the first of them and the others."""

import numpy as np
import pyarrow as pa

from pipeline.kernels.collapse import split_firsts


def test_firsts_by_hand():
    hashes = np.array([9, 7, 9, 9, 7, 1], dtype=np.uint64)
    got = split_firsts(hashes, pa.array(["d", "é", "b", "c", "f", "a"]))
    assert got.firsts.tolist() == [5, 4, 2]
    assert sorted(got.others.tolist()) == [0, 1, 3]
    assert hashes[got.others].tolist() == [7, 9, 9]
    numbers = split_firsts(hashes, pa.array([5, 4, 3, 2, 1, 0]))
    assert numbers.firsts.tolist() == [5, 4, 3]
    nothing = split_firsts(hashes[:0], pa.array([], pa.string()))
    assert len(nothing.firsts) == len(nothing.others) == 0


def test_a_million_copies_are_one_hash():
    hashes = np.full(1_000_000, 42, dtype=np.uint64)
    got = split_firsts(hashes, pa.array(np.arange(1_000_000)[::-1].copy()))
    assert got.firsts.tolist() == [999_999]
    assert len(got.others) == 999_999

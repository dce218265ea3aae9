"""Least alike members against every pair, and Hill's number by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pipeline.kernels.spread import effective_number, least_alike
from pipeline.kernels.vectors import l2_normalise


def test_least_alike_members_against_every_pair():
    rng = np.random.default_rng(1)
    sizes = [1, 2, 7, 0, 5]
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    vectors = l2_normalise(rng.normal(size=(15, 6)).astype(np.float32))
    a, b, cosine = least_alike(vectors, offsets)
    for i, size in enumerate(sizes):
        pairs = combinations(range(offsets[i], offsets[i + 1]), 2)
        every = [(float(vectors[x].astype(float) @ vectors[y]), x, y) for x, y in pairs]
        if size < 2:
            assert (a[i], b[i]) == (-1, -1)
            assert np.isnan(cosine[i])
        else:
            assert (a[i], b[i]) == min(every)[1:]
            assert cosine[i] == pytest.approx(min(every)[0], abs=1e-6)


def test_effective_number_by_hand():
    assert effective_number(np.array([5, 5, 5, 0])) == pytest.approx(3)
    assert effective_number(np.array([7])) == pytest.approx(1)
    assert effective_number(np.zeros(3)) == 0
    # shares 1/2, 1/4, 1/4: entropy 1.5 bits
    assert effective_number(np.array([2, 1, 1])) == pytest.approx(2**1.5)

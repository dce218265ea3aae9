"""The nearest stored row by brute force, one pair at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import nearest
from pipeline.kernels.cells import cosine_pairs_between
from pipeline.kernels.nearest import nearest_cosine, nearest_hamming
from pipeline.kernels.vectors import l2_normalise


@pytest.fixture(params=[3, 4096])
def block(request, monkeypatch):
    """Blocks of a few rows as well, so that the best of several blocks is carried on."""
    monkeypatch.setattr(nearest, "BLOCK", request.param)


def slow_hamming(hashes, stored):
    found = [
        min((int(a ^ b).bit_count(), j) for j, b in enumerate(stored.tolist()))
        for a in hashes.tolist()
    ]
    return [d for d, _ in found], [j for _, j in found]


def test_hamming_by_hand(block):
    stored = np.array([0b1111, 0b0000, 0b0011, 1 << 63, 0b0110], np.uint64)
    hashes = np.array([0, 0b0111, (1 << 64) - 1, 1 << 63], np.uint64)
    distance, at = nearest_hamming(hashes, stored)
    # 0111 is one bit from rows 0, 2 and 4: the first is named.
    assert distance.tolist() == [0, 1, 60, 0]
    assert at.tolist() == [1, 0, 0, 3]
    assert distance.dtype == np.float32


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12), st.integers(0, 99))
def test_hamming_equals_bit_counts(values, seed):
    rng = np.random.default_rng(seed)
    stored = np.array(values, np.uint64)
    flips = rng.integers(0, 2**64, size=20, dtype=np.uint64) & rng.integers(
        0, 2**64, size=20, dtype=np.uint64
    )
    hashes = stored[rng.integers(0, len(stored), size=20)] ^ flips
    distance, at = nearest_hamming(hashes, stored)
    assert (distance.tolist(), at.tolist()) == slow_hamming(hashes, stored)


def vectors(seed, n, d=24):
    return l2_normalise(np.random.default_rng(seed).normal(size=(n, d)))


def test_cosine_equals_brute_force_and_names_the_first_of_equals(block):
    stored = vectors(1, 11)
    stored[7] = stored[2]
    x = np.concatenate([vectors(2, 9), stored[[7, 4]]])
    cosine, at = nearest_cosine(x, stored)
    exact = (x[:, None].astype(np.float64) * stored[None]).sum(axis=2)
    np.testing.assert_allclose(cosine, exact.max(axis=1), rtol=0, atol=1e-15)
    assert at.tolist() == exact.argmax(axis=1).tolist()
    assert at[9] == 2


def test_cosine_of_near_ties_is_decided_in_double_precision(block):
    """Stored vectors that differ by 1e-7 or so: float32 products cannot tell them apart."""
    rng = np.random.default_rng(3)
    base = vectors(3, 1, 1280)[0]
    stored = l2_normalise(base + rng.normal(size=(40, 1280)) * 1e-7)
    x = l2_normalise(base + rng.normal(size=(5, 1280)) * 1e-2)
    _, at = nearest_cosine(x, stored)
    exact = (x[:, None].astype(np.float64) * stored[None]).sum(axis=2)
    assert at.tolist() == exact.argmax(axis=1).tolist()
    assert len(set(at.tolist())) > 1


def test_cosine_at_the_limit_is_what_the_pair_search_decides(block):
    """A threshold that is the cosine of a pair itself: both say near, one digit above neither."""
    stored, x = vectors(4, 6, 300), vectors(5, 30, 300)
    cosine, at = nearest_cosine(x, stored)
    for row in range(len(x)):
        for tau, near in ((cosine[row], True), (np.nextafter(cosine[row], 2), False)):
            pairs = cosine_pairs_between(x[row : row + 1], stored, tau)
            assert bool(cosine[row] >= tau) is near
            assert (at[row] in pairs.right.tolist()) is near


def test_rows_do_not_depend_on_their_neighbours():
    stored, x = vectors(6, 50, 200), vectors(7, 64, 200)
    whole = nearest_cosine(x, stored)
    for row in range(0, 64, 9):
        one = nearest_cosine(x[row : row + 1], stored)
        assert (one[0][0], one[1][0]) == (whole[0][row], whole[1][row])
    alone = np.concatenate([l2_normalise(v[None]) for v in x * np.float32(3.7)])
    assert alone.tobytes() == l2_normalise(x * np.float32(3.7)).tobytes()


def test_nothing_stored_and_nothing_asked():
    none = np.zeros(0, np.uint64)
    distance, at = nearest_hamming(np.array([5], np.uint64), none)
    assert (distance.tolist(), at.tolist()) == ([np.inf], [-1])
    assert len(nearest_hamming(none, np.array([5], np.uint64))[0]) == 0
    cosine, at = nearest_cosine(vectors(1, 2), np.zeros((0, 24), np.float32))
    assert (cosine.tolist(), at.tolist()) == ([-np.inf, -np.inf], [-1, -1])
    assert len(nearest_cosine(np.zeros((0, 24), np.float32), vectors(1, 2))[0]) == 0
    assert len(nearest_cosine(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32))[0]) == 0

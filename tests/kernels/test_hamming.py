"""Pairs within a Hamming radius: equal to brute force, each once, in bounded memory."""

import tracemalloc
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import block_keys, hamming
from pipeline.kernels.block_keys import permute, plan_tables, table_keys, table_routes, unpermute
from pipeline.kernels.hamming import (
    near_hashes,
    near_pairs,
    near_pairs_between,
)

RADII = range(9)


def random_hashes(count, seed=0, radius=8, width=64):
    """Distinct hashes, half of them flipped copies of others in at most radius + 2 bits."""
    rng = np.random.default_rng(seed)
    top = np.uint64((1 << width) - 1)
    base = rng.integers(0, 1 << 64, count, dtype=np.uint64) & top
    near = base.copy()
    for row in range(count):
        for bit in rng.choice(width, rng.integers(1, radius + 3), replace=False):
            near[row] ^= np.uint64(1) << np.uint64(bit)
    both = np.unique(np.concatenate([base, near]))
    return rng.permutation(both)


def brute(hashes, radius):
    distance = np.bitwise_count(hashes[:, None] ^ hashes)
    left, right = np.nonzero(np.triu(distance <= radius, k=1))
    return sorted(zip(left.tolist(), right.tolist(), distance[left, right].tolist(), strict=True))


def every_pair(hashes, plan, **options):
    got = [near_pairs(hashes, plan, t, **options) for t in range(plan.num_tables)]
    return [
        row
        for part in got
        for row in zip(part.left.tolist(), part.right.tolist(), part.distance.tolist(), strict=True)
    ]


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("num_hashes", [100, 10_000_000])
def test_all_pairs_once(radius, num_hashes):
    """The plan of any corpus size finds all pairs: recall does not hang on the size given."""
    hashes = random_hashes(400, seed=radius, radius=radius)
    got = every_pair(hashes, plan_tables(num_hashes, radius))
    assert sorted(got) == brute(hashes, radius)
    assert len(set(got)) == len(got)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(0, (1 << 12) - 1), unique=True, max_size=60),
    shift=st.integers(0, 52), radius=st.integers(0, 8), block=st.integers(1, 70),
)  # fmt: skip
def test_crowded_hashes(values, shift, radius, block):
    """Hashes that differ in twelve neighbouring bits only: long runs, and keys cut across them."""
    hashes = np.array(values, dtype=np.uint64) << np.uint64(shift)
    got = every_pair(hashes, plan_tables(1000, radius), block=block)
    assert sorted(got) == brute(hashes, radius)


def test_one_key_by_hand():
    plan = plan_tables(10, 1)
    hashes = np.array([0b0000, 0b0001, 0b0011, 1 << 63], dtype=np.uint64)
    assert sorted(every_pair(hashes, plan)) == [(0, 1, 1), (0, 3, 1), (1, 2, 1)]


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize(("crowded", "own_tables"), [(25, False), (300, True)])
def test_long_runs(monkeypatch, radius, crowded, own_tables):
    """Many hashes under one key: all pairs by tiles, or by tables of their own at every depth."""
    monkeypatch.setattr(hamming, "_LONG_RUN", 16)
    monkeypatch.setattr(hamming, "_TILE", 8)
    crowd = random_hashes(crowded, seed=radius, radius=radius, width=26)
    hashes = np.unique(np.concatenate([crowd, random_hashes(50, seed=9, radius=radius)]))
    asked = []
    inner = hamming.plan_tables
    monkeypatch.setattr(hamming, "plan_tables", lambda *a, **k: asked.append(k) or inner(*a, **k))
    got = every_pair(hashes, inner(len(hashes), radius))
    assert sorted(got) == brute(hashes, radius)
    assert bool(asked) == own_tables
    assert len(set(got)) == len(got)


def test_hot_key_of_distinct_hashes_is_not_quadratic(monkeypatch):
    """60,000 hashes under one 31-bit key."""
    rng = np.random.default_rng(0)
    hot = rng.integers(0, 1 << 33, 30_000, dtype=np.uint64)
    hashes = np.unique(np.concatenate([hot, hot ^ np.uint64(1 << 20)]))
    plan = plan_tables(1_000_000_000, 3)
    asked = []
    monkeypatch.setattr(
        hamming, "plan_tables", lambda *a, **k: asked.append(a) or plan_tables(*a, **k)
    )
    tracemalloc.start()
    got = [near_hashes(hashes, plan, t) for t in range(plan.num_tables)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pairs = set()
    for part in got:
        pairs |= set(zip(part.low.tolist(), part.high.tolist(), strict=True))
    for one in hot.tolist():
        two = one ^ (1 << 20)
        assert (min(one, two), max(one, two)) in pairs
    assert peak < 32 << 20
    assert max(count for count, *_ in asked) == len(hashes)


def test_slices_by_key_give_the_same_pairs():
    hashes = random_hashes(500, seed=4, radius=3)
    plan = plan_tables(1000, 3)
    for table in range(plan.num_tables):
        keys = table_keys(hashes, plan, table)
        assert int(keys.max()) < 1 << plan.key_bits[table]
        whole = near_hashes(hashes, plan, table)
        assert (whole.low < whole.high).all()
        parts = [near_hashes(hashes[keys % 7 == p], plan, table) for p in range(7)]
        low, high = (np.concatenate([getattr(p, n) for p in parts]) for n in ("low", "high"))
        order = np.lexsort((high, low))
        np.testing.assert_array_equal(low[order], whole.low)
        np.testing.assert_array_equal(high[order], whole.high)


def test_repeated_hashes_count_once_and_have_no_position():
    hashes = random_hashes(500, seed=5, radius=3)
    again = np.concatenate([hashes, hashes[::3], hashes[:1].repeat(2000)])
    plan = plan_tables(1000, 3)
    for table in range(plan.num_tables):
        expected, got = (near_hashes(given, plan, table) for given in (hashes, again))
        assert len(got.low)
        for one, two in zip(expected, got, strict=True):
            np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="occurs twice"):
        near_pairs(np.array([5, 5], dtype=np.uint64), plan_tables(2, 1), 0)


@pytest.mark.parametrize("radius", RADII)
def test_between_equals_brute_force(radius):
    corpus = random_hashes(300, seed=1, radius=radius)
    rng = np.random.default_rng(2)
    held_out = np.unique(
        np.concatenate([
            rng.choice(corpus, 40, replace=False),
            rng.choice(corpus, 40, replace=False) ^ (np.uint64(1) << np.uint64(17)),
            random_hashes(50, seed=3, radius=radius),
        ])
    )  # fmt: skip
    corpus = np.concatenate([corpus, corpus[:50]])  # a corpus may repeat
    distance = np.bitwise_count(corpus[:, None] ^ held_out)
    left, right = np.nonzero(distance <= radius)
    want = list(zip(left.tolist(), right.tolist(), distance[left, right].tolist(), strict=True))
    for num_hashes in (len(held_out), 1_000_000):
        plan = plan_tables(num_hashes, radius)
        got = []
        for table in range(plan.num_tables):
            part = near_pairs_between(corpus, held_out, plan, table, block=64)
            got += zip(part.left.tolist(), part.right.tolist(), part.distance.tolist(), strict=True)
        assert sorted(got) == want


def test_between_with_a_crowded_key_stays_within_its_block():
    stored = np.arange(3000, dtype=np.uint64)
    probes = np.zeros(20, dtype=np.uint64)
    plan = plan_tables(100, 1)
    part = near_pairs_between(probes, stored, plan, plan.num_tables - 1, block=128)
    assert len(part.left) == 20 * 12  # powers of two below 3000; 0 itself is the first table's
    nothing = np.zeros(0, dtype=np.uint64)
    assert len(near_pairs_between(nothing, stored, plan, 0).left) == 0
    assert len(near_pairs_between(probes, nothing, plan, 0).left) == 0


def test_batches_add_up():
    """New against old and new against new, without old against old, completes the pairs."""
    hashes = random_hashes(300, seed=8, radius=3)
    old, new = hashes[:400], hashes[400:]
    plan = plan_tables(1000, 3)
    got = [(low, high) for low, high, _ in every_pair(old, plan)]
    got += [(a + 400, b + 400) for a, b, _ in every_pair(new, plan)]
    for table in range(plan.num_tables):
        part = near_pairs_between(new, old, plan, table)
        got += [(b, a + 400) for a, b in zip(part.left, part.right, strict=True)]
    assert sorted(got) == [(a, b) for a, b, _ in brute(hashes, 3)]


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("num_hashes", [1, 1_000_000, 1_329_000_000])
def test_plan_leaves_a_key_untouched_by_any_errors_within_the_radius(radius, num_hashes):
    plan = plan_tables(num_hashes, radius)
    assert sum(size for _, size in plan.blocks) == 64
    assert sum(part.radius + 1 for part in plan.parts) == radius + 1
    assert f"radius={radius}" in plan.explanation
    for table in range(plan.num_tables):
        assert int(plan.masks[table]).bit_count() == plan.key_bits[table]
    # Worst cases: a bit of every block combination that is as spread out as can be.
    blocks = [1 << low for low, _ in plan.blocks]
    rng = np.random.default_rng(radius)
    hit = list(combinations(blocks, min(radius, len(blocks))))
    some = [hit[i] for i in rng.integers(0, len(hit), 3000)] if len(hit) > 3000 else hit
    errors = np.array([sum(bits) for bits in some], np.uint64)
    assert ((errors[:, None] & plan.masks) == 0).any(axis=1).all()


@pytest.mark.parametrize("num_hashes", [3, 50_000, 10_000_000])
@pytest.mark.parametrize(("radius", "width"), [(1, 8), (2, 12), (3, 40), (4, 30)])
def test_plan_is_the_cheapest_of_all_ways_to_share_the_radius(num_hashes, radius, width):
    def cost(bits, m, tolerated):
        chance = num_hashes / 2 * 2.0 ** (-bits * (m - tolerated) / m)
        one = block_keys.CROWDING * chance * block_keys.CANDIDATE_NANOSECONDS
        return comb(m, tolerated) * (block_keys.ROW_NANOSECONDS + one)

    best = {
        (share, bits): min(
            cost(bits, m, share - 1) for m in (range(share, bits + 1) if share > 1 else (1,))
        )
        for share in range(1, radius + 2)
        for bits in range(share, width + 1)
    }

    def ways(shares, bits):
        """Costs of all lists of parts, whatever their order."""
        if shares == 0:
            if bits == 0:
                yield 0.0
            return
        for share in range(1, shares + 1):
            for own in range(share, bits - (shares - share) + 1):
                for rest in ways(shares - share, bits - own):
                    yield best[share, own] + rest

    plan = plan_tables(num_hashes, radius, width=width)
    assert sum(cost(*part) for part in plan.parts) == pytest.approx(min(ways(radius + 1, width)))
    assert (radius, num_hashes) != (3, 50_000) or len(plan.parts) > 1


def test_routes_keep_a_key_together_and_spread_keys_evenly():
    hashes = np.random.default_rng(3).integers(0, 1 << 64, 50_000, dtype=np.uint64)
    plan = plan_tables(1_000_000, 3)
    for table in range(plan.num_tables):
        routes = table_routes(hashes, plan, table, 7)
        noise = np.uint64(0xFFFF_FFFF_FFFF_FFFF) ^ plan.masks[table]
        np.testing.assert_array_equal(routes, table_routes(hashes ^ noise, plan, table, 7))
        sizes = np.bincount(routes, minlength=7)
        assert len(sizes) == 7
        assert sizes.min() > 0.9 * sizes.mean()


def test_plan_follows_the_corpus():
    """At 1.3 billion hashes a 16-bit key would give 20,000 candidates a table."""
    small, large = plan_tables(10_000, 3), plan_tables(1_329_000_000, 3)
    assert small.num_tables < large.num_tables
    assert large.candidates_per_probe < 1000
    assert min(large.key_bits) >= 22
    with pytest.raises(ValueError, match="radius"):
        plan_tables(10, 9)
    with pytest.raises(ValueError, match="width"):
        plan_tables(10, 3, width=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=20), st.integers(0, 8))
def test_permuting_keeps_distances(values, radius):
    hashes = np.array(values, dtype=np.uint64)
    plan = plan_tables(1_000_000, radius)
    for table in range(0, plan.num_tables, 7):
        moved = permute(hashes, plan, table)
        np.testing.assert_array_equal(unpermute(moved, plan, table), hashes)
        np.testing.assert_array_equal(
            np.bitwise_count(moved ^ moved[0]), np.bitwise_count(hashes ^ hashes[0])
        )
        free = plan.width - plan.key_bits[table]
        agree = ((hashes ^ hashes[0]) & plan.masks[table]) == 0
        same = table_keys(hashes, plan, table) == table_keys(hashes, plan, table)[0]
        np.testing.assert_array_equal(agree, same)
        assert free >= 0

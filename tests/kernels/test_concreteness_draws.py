"""What a concreteness probe is given: folds, batches, negatives; and the bounds of its score."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.kernels.binomial import standard_error, wilson_lower
from pipeline.kernels.concreteness_sampling import NegativePool, sample_hashes
from pipeline.kernels.concreteness_splits import SplitSettings, plan_folds
from pipeline.kernels.hashing import hash_ints


def image_hashes(ids):
    return hash_ints(np.asarray(ids), 0, "image")


SPLITS = SplitSettings(
    test_share=0.2, folds_below=60, num_folds=5, num_repeats=2, max_repeated_rows=2000,
    validation_share=0.1,
    batch_size=200, min_batch_size=16, batches_per_epoch=8,
)  # fmt: skip


@pytest.mark.parametrize("num_rows", [2, 3, 11, 19, 20, 59, 60, 61, 150, 1000])
def test_splits_test_every_row_once_or_the_stated_share_and_batches_cover_the_rest(num_rows):
    plans = plan_folds(num_rows, SPLITS)
    for repeat in (0, 1):
        mine = [p for p in plans if p.repeat == repeat]
        tested = np.concatenate([p.test[p.test >= 0] for p in mine] or [[]])
        if num_rows < 60:
            assert sorted(tested) == list(range(num_rows))
        else:
            assert len(tested) == (round(num_rows * 0.2) if repeat == 0 else 0)
    for plan in plans:
        parts = [r[r >= 0] for r in (plan.train, plan.validation, plan.test)]
        assert sorted(np.concatenate(parts)) == list(range(num_rows))
        assert len(parts[1]) == (0 if num_rows < 60 else round(0.1 * (num_rows - len(parts[2]))))
        sizes = (plan.train >= 0).sum(axis=1)
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1
        assert 2 * sizes.max() <= 200
    with pytest.raises(ValueError, match="expected >= 2"):
        plan_folds(1, SPLITS)


def test_repeats_deal_other_folds():
    plans = plan_folds(40, SPLITS)
    tests = {(p.repeat, p.fold): set(p.test[p.test >= 0].tolist()) for p in plans}
    assert all(tests[0, f] != tests[1, g] for f in range(5) for g in range(5))


def test_rounds_are_added_while_they_cost_no_more_than_stated():
    splits = replace(SPLITS, folds_below=400, num_repeats=3)
    rounds = {n: splits.repeats(n) for n in (3, 20, 133, 134, 200, 201, 399, 400, 1000)}
    assert rounds == {3: 3, 20: 3, 133: 3, 134: 2, 200: 2, 201: 1, 399: 1, 400: 1, 1000: 1}
    for n in rounds:
        assert len(plan_folds(n, splits)) == splits.num_probes(n)


def test_full_support_gets_eight_steps_of_two_hundred_rows():
    (plan,) = plan_folds(1000, replace(SPLITS, folds_below=200, validation_share=0.0))
    assert plan.shape == (8, 100, 0, 200)


def ranked(pool, term, images, seed):
    """All rows of ``images`` in the order of a draw, one by one: by the hash of the leading bits of
    the image's hash, then by the image's."""
    bits = max(int(np.log2(max(pool.size // 8, 1))), 0)

    def key(row):
        image = int(pool.image_hashes[row])
        block = np.array([image >> (64 - bits)], np.uint64)
        of_block = sample_hashes(block, term, seed, "concreteness.negative_blocks")
        own = sample_hashes(pool.image_hashes[[row]], term, seed, "concreteness.negatives")
        return int(of_block[0]), int(own[0])

    rows = (row for row in range(pool.size) if int(pool.image_hashes[row]) in images)
    return sorted(rows, key=key)


@pytest.mark.parametrize("size", [1, 7, 15, 16, 100, 1000])
def test_draws_from_pools_of_any_size_and_terms_of_any_share(size):
    """A tiny pool is one block; where most images are a term's own, or its positives, a draw needs
    more blocks than it looked at first."""
    ids = image_hashes(np.arange(size))
    carried = np.arange(size) % 10 != 3  # term 0 is on nine images of ten
    offsets = np.concatenate([[0], np.cumsum(carried)])
    flat = np.zeros(offsets[-1], int)
    pool = NegativePool.build(ids, np.zeros((size, 1), np.float32), offsets, flat)
    last = max(size - 60, 2)
    taken = ids[:last]
    for term, free in ((0, ids[last:][~carried[last:]]), (1, ids[last:])):
        order = ranked(pool, term, {int(h) for h in free}, 3)
        for num in (0, 1, 9, size, 2 * size):
            assert pool.draw(term, taken, num, 3).tolist() == order[:num]


def test_blocks_of_a_pool_are_even_and_cover_it():
    ids = image_hashes(np.arange(3000))
    empty = np.zeros(3001, int)
    pool = NegativePool.build(ids, np.zeros((3000, 1), np.float32), empty, empty[:0])
    starts = pool.block_starts
    assert (starts[0], starts[-1], len(starts) - 1) == (0, 3000, 256)
    leading = (pool.image_hashes >> np.uint64(56)).astype(int)
    assert np.array_equal(np.repeat(np.arange(256), np.diff(starts)), leading)


def test_negatives_never_carry_the_term_nor_are_its_positives():
    rng = np.random.default_rng(1)
    ids = image_hashes(np.arange(400))
    sets = [sorted(rng.choice(6, rng.integers(0, 4), replace=False)) for _ in ids]
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sets])])
    flat = np.array([t for s in sets for t in s])
    canonical = np.array([0, 1, 2, 3, 4, 0])  # term 5 is an alias of term 0
    pool = NegativePool.build(ids, rng.normal(size=(400, 3)), offsets, flat, canonical)
    carries = {int(h): {int(canonical[t]) for t in s} for h, s in zip(ids, sets, strict=True)}
    for term in range(7):
        taken = ids[[3, 7, 11]]
        rows = pool.draw(term, taken, 10**6, seed=0)
        want = {h for h, s in carries.items() if (0 if term == 5 else term) not in s} - {
            int(h) for h in taken
        }
        assert {int(h) for h in pool.image_hashes[rows]} == want
        for num in (1, 20, 150):
            few = pool.draw(term, taken, num, seed=0)
            assert few.tolist() == ranked(pool, term, want, 0)[:num]
    assert not np.array_equal(pool.draw(6, taken, 20, 0), pool.draw(6, taken, 20, 1))


def test_draw_is_uniform_and_independent_of_pool_order():
    size = 5000
    ids = image_hashes(np.arange(size))
    x = np.zeros((size, 1), np.float32)
    empty = np.zeros(size + 1, int)
    pool = NegativePool.build(ids, x, empty, np.zeros(0, int))
    none = np.zeros(0, np.uint64)
    times = np.zeros(size)
    for term in range(300):
        times[pool.draw(term, none, 100, 0)] += 1
    assert abs(times.var() / times.mean() - 1) < 0.1  # binomial: variance = mean * (1 - 0.02)
    turned = NegativePool.build(ids[::-1], x, empty, np.zeros(0, int))
    assert np.array_equal(pool.draw(5, none, 100, 0), turned.draw(5, none, 100, 0))


def test_binomial_bounds_by_hand():
    # p = 0.9, n = 100, z = 1.645: (0.9 + 0.01353 - 0.05110) / 1.02706
    assert wilson_lower(90, 100, 0.95) == pytest.approx(0.83984, abs=2e-4)
    assert wilson_lower([0, 0, 5], [0, 10, 5], 0.95) == pytest.approx([0, 0, 5 / 7.7055], abs=1e-4)
    assert standard_error(90, 100) == pytest.approx(0.03)
    with pytest.raises(ValueError, match="confidence"):
        wilson_lower(1, 2, 0.5)

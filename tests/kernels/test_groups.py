"""The kept image and the guard against drift: hand cases and a plain greedy oracle."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.groups import (
    EXACT,
    NONE,
    PERCEPTUAL,
    SEMANTIC,
    Verifier,
    choose_kept,
    keep_order,
    match_blocked,
    peel_groups,
    spread_blocked,
)
from pipeline.kernels.vectors import l2_normalise


def order_of(rows):
    """rows: (is_blocked, area, num_labels, sha256, image_id)."""
    blocked, area, num_labels, sha256, image_id = zip(*rows, strict=True)
    return keep_order(
        np.array(blocked),
        np.array(area),
        np.array(num_labels),
        pa.array(sha256),
        pa.array(image_id),
    )


def verifier(sha256, phash, is_flat=None, **options):
    flat = np.zeros(len(sha256), np.bool_) if is_flat is None else np.array(is_flat)
    return Verifier(np.array(sha256), np.array(phash, dtype=np.uint64), flat, **options)


def test_order_by_hand():
    rows = [
        (False, 10, 1, "b", "z"),
        (False, 10, 1, "b", "y"),
        (False, 10, 1, "a", "z"),
        (False, 10, 2, "c", "z"),
        (False, 11, 0, "c", "z"),
        (True, 99, 9, "a", "a"),
        (False, 10, 1, "b", "é"),
    ]
    assert order_of(rows).tolist() == [4, 3, 2, 1, 0, 6, 5]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(1, 3), st.integers(0, 2), st.sampled_from("abc"),
            st.integers(0, 3),
        ),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_kept_equals_python(drawn):
    rows = [(b, a, n, s, f"id{k:02d}") for k, (b, a, n, s, _) in enumerate(drawn)]
    group = np.array([g for *_, g in drawn])
    kept = choose_kept(group, order_of(rows))
    for row, got in enumerate(kept.tolist()):
        members = [k for k in range(len(rows)) if group[k] == group[row]]
        want = min(
            members, key=lambda k: (rows[k][0], -rows[k][1], -rows[k][2], rows[k][3], rows[k][4])
        )
        assert got == want


def test_tiers_by_hand():
    x = l2_normalise(np.array([[1, 0], [1, 0.01], [0, 1], [0, 1], [0, 0]]))
    check = verifier(
        [1, 2, 3, 3, 5], [0, 0b11, 0b11, 0b1111, 0b1], [False, False, True, False, False],
        radius=2, vectors=x, tau=0.95,
    )  # fmt: skip
    one, two = np.array([0, 0, 0, 1, 2, 0, 4]), np.array([1, 2, 3, 2, 3, 4, 4])
    got = check.match(one, two)
    assert got.tier.tolist() == [PERCEPTUAL, NONE, NONE, NONE, EXACT, PERCEPTUAL, EXACT]
    assert got.distance.tolist()[0] == 2
    assert np.isnan(got.distance[1])
    only_vectors = verifier([1, 2], [0, 1], vectors=x[:2], tau=0.95).match(
        np.array([0]), np.array([1])
    )
    assert only_vectors.tier.tolist() == [SEMANTIC]
    assert 0 < only_vectors.distance[0] < 1e-4
    assert verifier([1, 2], [0, 0]).match(np.array([0]), np.array([1])).tier.tolist() == [NONE]


def test_a_chain_is_cut_where_it_drifts():
    """Five pictures, each 2 bits from the next, radius 3: 0 keeps 1; 2 keeps 3; 4 is alone."""
    phash = [0, 0b11, 0b1111, 0b111111, 0b11111111]
    rows = [(False, 100 - k, 1, f"{k}", f"{k}") for k in range(5)]
    check = verifier(range(5), phash, radius=3)
    got = peel_groups(np.zeros(5, np.int64), order_of(rows), check)
    assert got.kept.tolist() == [0, 0, 2, 2, 4]
    assert got.round.tolist() == [0, 0, 1, 1, 2]
    assert got.tier.tolist() == [NONE, PERCEPTUAL, NONE, PERCEPTUAL, NONE]
    assert got.distance.tolist() == [0, 2, 0, 2, 0]


def test_the_middle_of_a_chain_takes_both_sides():
    phash = [0, 0b11, 0b1111]
    rows = [(False, area, 1, "s", f"{k}") for k, area in enumerate((5, 9, 5))]
    got = peel_groups(np.zeros(3, np.int64), order_of(rows), verifier(range(3), phash, radius=2))
    assert got.kept.tolist() == [1, 1, 1]


def greedy(group, order, check):
    kept = np.full(len(group), -1)
    for position, row in enumerate(order):
        if kept[row] >= 0:
            continue
        kept[row] = row
        for other in order[position + 1 :]:
            if kept[other] < 0 and group[other] == group[row]:
                match = check.match(np.array([row]), np.array([other]))
                if match.tier[0] != NONE:
                    kept[other] = row
    return kept


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
def test_peeling_equals_greedy(seed, count):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, count)
    sha256 = rng.integers(0, 12, count)
    # Signals follow from the content, as they do for real files.
    phash = rng.integers(0, 1 << 8, 12).astype(np.uint64)[sha256]
    is_flat = (rng.random(12) < 0.2)[sha256]
    area = rng.integers(1, 4, 12)[sha256]
    x = l2_normalise(rng.standard_normal((12, 3)))[sha256]
    check = verifier(sha256, phash, is_flat, radius=2, vectors=x, tau=0.8)
    rows = [
        (bool(rng.random() < 0.2), int(area[k]), int(rng.integers(0, 3)), f"{sha256[k]:02d}",
         f"{k:02d}")
        for k in range(count)
    ]  # fmt: skip
    order = order_of(rows)
    got = peel_groups(group, order, check)
    np.testing.assert_array_equal(got.kept, greedy(group, order, check))
    assert (got.kept[got.kept] == got.kept).all()
    member = got.kept != np.arange(count)
    assert (got.tier[member] != NONE).all()
    shuffle = rng.permutation(count)
    again = peel_groups(
        group[shuffle],
        order_of([rows[k] for k in shuffle]),
        verifier(
            sha256[shuffle], phash[shuffle], is_flat[shuffle], radius=2, vectors=x[shuffle], tau=0.8
        ),
    )
    np.testing.assert_array_equal(shuffle[again.kept], got.kept[shuffle])


def test_a_million_copies_cost_one_row():
    count = 300_000
    order = np.arange(count)[::-1].copy()
    calls = []

    class Counting(Verifier):
        def match(self, one, two):
            calls.append(len(one))
            return super().match(one, two)

    check = Counting(
        np.zeros(count, np.int64), np.zeros(count, np.uint64), np.ones(count, np.bool_), radius=3
    )
    got = peel_groups(np.zeros(count, np.int64), order, check)
    assert (got.kept == count - 1).all()
    assert calls == [0]
    assert (got.tier == EXACT).sum() == count - 1


def test_blocked_spreads_over_its_group():
    kept = np.array([0, 0, 2, 2, 4])
    got = spread_blocked(kept, np.array([False, True, False, False, True]))
    assert got.tolist() == [True, True, False, False, True]
    assert spread_blocked(kept[:0], np.zeros(0, np.bool_)).tolist() == []


def test_empty():
    none = np.zeros(0, np.int64)
    got = peel_groups(none, none, verifier(none, none))
    assert got.kept.tolist() == []
    with pytest.raises(IndexError):
        choose_kept(none, np.array([0]))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 15), st.integers(0, 5)),
        min_size=1,
        max_size=25,
    )
)
def test_matches_of_blocked_rows_equal_all_pairs_of_the_component(rows):
    """rows: (group, is_blocked, phash, sha256)."""
    group, blocked, phash, sha256 = (np.array(c) for c in zip(*rows, strict=True))
    sha256 = sha256 + 10 * phash  # equal bytes, equal hashes
    found = match_blocked(group, blocked, verifier(sha256, phash, radius=1))
    expected = [
        b or any(g == h and c and (p ^ q).bit_count() <= 1 for h, c, q, _ in rows)
        for g, b, p, _ in rows
    ]
    assert found.tolist() == expected

"""Resampling weights, copies, and what they do to label counts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.resampling import (
    FIXED_POINT,
    draw_copies,
    image_weights,
    label_sums,
    make_rule,
    rarest_counts,
    to_fixed_point,
)


def csr(lists):
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in lists], dtype=int)]).astype(np.int64)
    return offsets, np.array([c for r in lists for c in r], int)


def corpus(lists, num_labels):
    offsets, labels = csr(lists)
    counts = label_sums(offsets, labels, np.ones(len(lists), int), num_labels)
    return offsets, labels, counts


def rule_of(policy, lists, num_labels, **options):
    offsets, labels, counts = corpus(lists, num_labels)
    rarest = rarest_counts(offsets, labels, counts)
    given = {"threshold": None, "target_size": None, "cap": None, "max_copies": 20} | options
    rule = make_rule(policy, counts, rarest, np.ones(len(rarest), int), **given)
    return rule, image_weights(rule, offsets, labels)


# label 0 on four images, label 1 on one of them and one more: counts 4, 2; N = 5
SMALL = [[0], [0], [0], [0, 1], [1]]


def test_inverse_sqrt_by_hand():
    _, w = rule_of("inverse_sqrt", SMALL, 2)
    s = 5 / (3 / 2 + 2 / math.sqrt(2))
    assert w == pytest.approx([s / 2] * 3 + [s / math.sqrt(2)] * 2)
    assert w.sum() == pytest.approx(5)
    _, w = rule_of("inverse_sqrt", SMALL, 2, threshold=0.2)  # sqrt(0.2 / 0.8), sqrt(0.2 / 0.4)
    assert w == pytest.approx([0.5] * 3 + [math.sqrt(0.5)] * 2)


def test_other_policies_by_hand():
    assert rule_of("repeat_factor", SMALL, 2, threshold=0.9)[1] == pytest.approx(
        [math.sqrt(0.9 / 0.8)] * 3 + [1.5] * 2
    )
    assert rule_of("repeat_factor", SMALL, 2, threshold=0.5)[1] == pytest.approx(
        [1] * 3 + [math.sqrt(0.5 / 0.4)] * 2
    )
    assert rule_of("natural", SMALL, 2)[1].tolist() == [1] * 5
    assert rule_of("natural", SMALL, 2, target_size=10)[1].tolist() == [2] * 5
    s = 5 / (3 / 4 + 2 / 2)
    assert rule_of("uniform", SMALL, 2)[1] == pytest.approx([s / 4] * 3 + [s / 2] * 2)
    # each label draws one image: 1/4 of label 0, 1/2 of label 1, either for the image with both
    assert rule_of("cap", SMALL, 2, cap=1)[1] == pytest.approx([0.25] * 3 + [1 - 0.75 / 2, 0.5])
    assert rule_of("cap", SMALL, 2, cap=9)[1].tolist() == [1] * 5


def test_cap_on_copies_is_solved_for():
    lists = [[0]] * 100 + [[1]]
    _, w = rule_of("inverse_sqrt", lists, 2, target_size=300, max_copies=4)
    assert w[-1] == 4
    assert w[:-1] == pytest.approx([2.96] * 100)
    assert w.sum() == pytest.approx(300)
    _, w = rule_of("inverse_sqrt", lists, 2, target_size=404, max_copies=4)
    assert w.tolist() == [4] * 101
    with pytest.raises(ValueError, match=r"target size 405, expected 1 to 404"):
        rule_of("inverse_sqrt", lists, 2, target_size=405, max_copies=4)


def test_missing_parameters_are_named():
    with pytest.raises(ValueError, match="needs `cap`"):
        rule_of("cap", SMALL, 2)
    with pytest.raises(ValueError, match="needs `threshold`"):
        rule_of("repeat_factor", SMALL, 2)


def test_images_without_labels_are_never_shown():
    for policy in ("inverse_sqrt", "natural", "uniform", "repeat_factor", "cap"):
        _, w = rule_of(policy, [[0], [], [0]], 1, threshold=0.5, cap=1)
        assert w[1] == 0
        assert (w[[0, 2]] > 0).all()


IMAGES = st.lists(st.sets(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=40)


@settings(max_examples=120, deadline=None)
@given(IMAGES, st.sampled_from(["inverse_sqrt", "uniform", "natural"]), st.integers(1, 90),
       st.integers(1, 4))  # fmt: skip
def test_weights_equal_the_slow_reading_and_sum_to_the_target(sets, policy, target, most):
    lists = [sorted(s) for s in sets]
    n = len(lists)
    if target > most * n:
        return
    _, w = rule_of(policy, lists, 7, target_size=target, max_copies=most)
    count = [sum(c in r for r in lists) for c in range(7)]
    power = {"inverse_sqrt": 0.5, "uniform": 1, "natural": 0}[policy]
    raw = np.array([max((n / count[c]) ** power for c in r) for r in lists])
    low, high = 0.0, 1e6
    for _ in range(200):  # bisection instead of the closed form
        mid = (low + high) / 2
        low, high = (mid, high) if np.minimum(most, mid * raw).sum() < target else (low, mid)
    assert w == pytest.approx(np.minimum(most, high * raw), rel=1e-9)
    assert w.sum() == pytest.approx(target)


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.randoms(use_true_random=False))
def test_the_rule_does_not_depend_on_how_the_histogram_is_split(sets, random):
    lists = [sorted(s) for s in sets]
    offsets, labels, counts = corpus(lists, 7)
    rarest = rarest_counts(offsets, labels, counts)
    options = (None, None, None, 20)
    want = make_rule("inverse_sqrt", counts, rarest, np.ones(len(rarest), int), *options)
    random.shuffle(shuffled := rarest.tolist())
    value, number = np.unique(shuffled, return_counts=True)
    got = make_rule("inverse_sqrt", counts, value[::-1], number[::-1], *options)
    assert got.scale == want.scale


def test_copies_have_the_weight_as_mean_and_never_exceed_it_by_one():
    w = np.array([0, 0.25, 1, 1.5, 2.999, 3])
    hashes = hash_ints(np.arange(6 * 4000), 0, "test").reshape(6, 4000)
    copies = draw_copies(np.repeat(w, 4000), hashes.ravel()).reshape(6, 4000)
    assert copies.mean(axis=1) == pytest.approx(w, abs=0.03)
    assert (copies >= np.floor(w)[:, None]).all()
    assert (copies <= np.ceil(w)[:, None]).all()
    assert draw_copies(np.array([0.5, 0.5]), np.array([0, 2**64 - 1], np.uint64)).tolist() == [1, 0]


def zipf_exponent(counts):
    rank = np.arange(1, len(counts) + 1)
    return -np.polyfit(np.log(rank), np.log(counts), 1)[0]


def test_exponent_of_a_zipf_corpus_is_halved():
    """R2."""
    counts = np.round(40000 / np.arange(1, 201) ** 1.1).astype(int)
    labels = np.repeat(np.arange(200), counts)
    offsets = np.arange(len(labels) + 1)
    rarest = rarest_counts(offsets, labels, counts)
    rule = make_rule(
        "inverse_sqrt", counts, rarest, np.ones(len(labels), int), None, None, None, 50
    )
    weights = image_weights(rule, offsets, labels)
    copies = draw_copies(weights, hash_ints(np.arange(len(labels)), 7, "resample"))
    before, after = zipf_exponent(counts), zipf_exponent(label_sums(offsets, labels, copies, 200))
    assert after == pytest.approx(before / 2, rel=0.05)
    expected = label_sums(offsets, labels, to_fixed_point(weights), 200) / FIXED_POINT
    assert zipf_exponent(expected) == pytest.approx(before / 2, rel=0.01)
    assert copies.sum() == pytest.approx(len(labels), rel=0.01)


def test_realised_counts_equal_an_independent_oracle_on_several_labels():
    """R2, multi-label: within sampling error of expectations drawn by another generator."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 41)
    lists = [
        sorted(set(rng.choice(40, rng.integers(1, 4), p=popularity / popularity.sum())))
        for _ in range(6000)
    ]
    offsets, labels, counts = corpus(lists, 40)
    _, w = rule_of("inverse_sqrt", lists, 40)
    copies = draw_copies(w, hash_ints(np.arange(6000), 1, "resample"))
    realised = label_sums(offsets, labels, copies, 40)
    frequency = counts / 6000
    raw = np.array([max(frequency[c] ** -0.5 for c in r) for r in lists])
    t_root = 6000 / raw.sum()
    expected, variance = np.zeros(40), np.zeros(40)
    for r, x in zip(lists, raw * t_root, strict=True):
        expected[r] += x
        variance[r] += (x % 1) * (1 - x % 1)
    assert np.abs((realised - expected) / np.sqrt(variance)).max() < 4
    fixed = label_sums(offsets, labels, to_fixed_point(w), 40) / FIXED_POINT
    assert fixed == pytest.approx(expected, rel=1e-5)

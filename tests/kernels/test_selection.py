"""Annotation selection and threshold calibration."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.binomial import wilson_lower
from pipeline.kernels.nested import ANNOTATION_TYPE
from pipeline.kernels.selection import REASONS, TermRules, select_annotations
from pipeline.kernels.thresholds import calibrate_threshold


def column(lists):
    rows = [
        None if r is None else [{"term_id": t, "score": s} for t, s in sorted(r.items())]
        for r in lists
    ]
    return pa.array(rows, ANNOTATION_TYPE)


def listed(array):
    return [[(a["term_id"], a["score"]) for a in row] for row in array.to_pylist()]


# 0 cat; 1 kitty -> cat; 2 katze (German) -> cat; 3 hund (German); 4 slur; 5 slurr -> slur;
# 6 a slur for cats -> cat, marked; 7 dog; 9 pup -> dog (8 is no term)
IDS = np.array([9, 0, 1, 2, 3, 4, 5, 6, 7])
CANONICAL = np.array([7, 0, 0, 0, 3, 4, 4, 0, 7])
ENGLISH = ~np.isin(IDS, [2, 3])
SENSITIVE = np.isin(IDS, [4, 6])


def rules(min_score=0.5):
    return TermRules.build(IDS, CANONICAL, ENGLISH, SENSITIVE, min_score)


def test_merge_by_hand():
    got = select_annotations(
        column(
            [
                {0: 0.6, 1: 0.9, 2: 0.7},  # cat by its best alias
                {1: 0.4, 7: 0.5},  # cat below the threshold, dog on it
                {3: 0.9, 4: 0.9, 5: 0.9},  # German; sensitive; alias of sensitive
                {0: 0.6, 6: 0.99},  # a sensitive alias lends no score
                {6: 0.99},
                {7: 0.6, 9: 0.6},
                None,
                {},
                {1: 0.75, 9: 0.7, 7: 0.1},
            ]
        ),
        rules(),
        "merge",
    )
    assert listed(got.annotations) == [
        [(0, pytest.approx(0.9))], [(7, 0.5)], [], [(0, pytest.approx(0.6))], [],
        [(7, pytest.approx(0.6))], [], [], [(0, 0.75), (7, pytest.approx(0.7))],
    ]  # fmt: skip
    assert got.counts == {
        "alias": 0, "alias_merged": 4, "language": 1, "sensitive": 4, "low_score": 1,
    }  # fmt: skip
    assert got.annotations.type == ANNOTATION_TYPE


def test_drop_is_the_literal_reading():
    got = select_annotations(
        column([{0: 0.6, 1: 0.9, 2: 0.7}, {1: 0.9}, {4: 0.9, 5: 0.9, 7: 0.4}]), rules(), "drop"
    )
    assert listed(got.annotations) == [[(0, pytest.approx(0.6))], [], []]
    assert got.counts == {
        "alias": 4, "alias_merged": 0, "language": 0, "sensitive": 1, "low_score": 1,
    }  # fmt: skip


def test_threshold_of_each_term():
    per_term = np.where(IDS == 0, 0.9, 0.2)
    got = select_annotations(column([{0: 0.8, 7: 0.3}, {1: 0.95}]), rules(per_term), "merge")
    assert listed(got.annotations) == [[(7, pytest.approx(0.3))], [(0, pytest.approx(0.95))]]


def oracle(lists, aliases):
    position = {int(t): i for i, t in enumerate(IDS)}
    out, counts = [], dict.fromkeys(REASONS, 0)
    for row in lists:
        groups = {}
        for term, score in sorted((row or {}).items()):
            i = position[term]
            canonical = int(CANONICAL[i])
            c = position[canonical]
            if aliases == "drop" and term != canonical:
                counts["alias"] += 1
                continue
            groups.setdefault(canonical, []).append(
                (bool(SENSITIVE[i] or SENSITIVE[c]), -np.float32(score), term != canonical, term)
            )
        kept = []
        for canonical in sorted(groups):
            for rank, (bad, minus, _, _) in enumerate(sorted(groups[canonical])):
                if rank > 0 and not bad:
                    counts["alias_merged"] += 1
                elif not ENGLISH[position[canonical]]:
                    counts["language"] += 1
                elif bad:
                    counts["sensitive"] += 1
                elif -minus < np.float32(0.5):
                    counts["low_score"] += 1
                else:
                    kept.append((canonical, float(-minus)))
        out.append(kept)
    return out, counts


SCORES = st.sampled_from([0.1, 0.5, 0.500001, 0.7, 0.9])
LISTS = st.lists(
    st.none() | st.dictionaries(st.sampled_from(IDS.tolist()), SCORES, max_size=9), max_size=8
)


@settings(max_examples=120, deadline=None)
@given(LISTS, st.sampled_from(["merge", "drop"]), st.integers(0, 3))
def test_equals_the_slow_reading_on_any_slice(lists, aliases, skip):
    array = column(lists)[skip:]
    got = select_annotations(array, rules(), aliases)
    want, counts = oracle(lists[skip:], aliases)
    assert listed(got.annotations) == want
    assert got.counts == counts
    before = sum(len(r or {}) for r in lists[skip:])
    assert before == sum(map(len, want)) + sum(counts.values())
    chunked = pa.chunked_array([array[:2], array[2:]], type=ANNOTATION_TYPE)
    assert select_annotations(chunked, rules(), aliases).annotations.equals(got.annotations)


def test_bad_dictionaries_and_terms_are_refused():
    with pytest.raises(ValueError, match="term_id 10 is not in the dictionary"):
        select_annotations(column([{10: 0.9}]), rules(), "merge")
    with pytest.raises(ValueError, match=r"1 aliases of aliases \(first: term 2\)"):
        TermRules.build(np.arange(3), np.array([0, 0, 1]), *np.ones((2, 3), bool), 0.5)
    with pytest.raises(ValueError, match="not in the dictionary"):
        TermRules.build(np.array([0, 2]), np.array([0, 1]), *np.ones((2, 2), bool), 0.5)
    with pytest.raises(ValueError, match="1 null structs"):
        select_annotations(
            pa.array([[{"term_id": 0, "score": None}]], ANNOTATION_TYPE), rules(), "merge"
        )


def test_threshold_by_hand():
    scores = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.6, 0.5])
    correct = np.array([True, True, True, True, False, True, False])
    curve = calibrate_threshold(scores, correct, 0.55, 0.9)
    assert curve.threshold.tolist() == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert curve.num_kept.tolist() == [7, 6, 4, 3, 1]
    assert curve.num_correct.tolist() == [5, 5, 4, 3, 1]
    assert curve.precision.tolist() == pytest.approx([5 / 7, 5 / 6, 1, 1, 1])
    assert curve.recall.tolist() == pytest.approx([1, 1, 0.8, 0.6, 0.2])
    # z = 1.2816: bounds 0.472, 0.575, 0.709, 0.646, 0.378
    assert curve.precision_lower.tolist() == pytest.approx(
        [0.472, 0.575, 0.709, 0.646, 0.378], abs=2e-3
    )
    assert curve.chosen == 0.6
    assert calibrate_threshold(scores, correct, 0.9, 0.95).chosen is None
    assert calibrate_threshold(np.zeros(0), np.zeros(0, bool), 0.5, 0.9).chosen is None
    assert np.isnan(calibrate_threshold(np.ones(2), np.zeros(2, bool), 0.5, 0.9).recall).all()
    for bad in ((scores[:2], correct, 0.5), (np.array([np.nan]), correct[:1], 0.5)):
        with pytest.raises(ValueError, match="threshold sample"):
            calibrate_threshold(*bad, 0.9)
    with pytest.raises(ValueError, match="target_precision"):
        calibrate_threshold(scores, correct, 1.0, 0.9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_chosen_threshold_is_the_lowest_that_reaches(rows):
    scores, correct = np.array([s / 10 for s, _ in rows]), np.array([c for _, c in rows], bool)
    want = None
    for t in sorted(set(scores), reverse=True):
        kept = scores >= t
        if wilson_lower(correct[kept].sum(), kept.sum(), 0.9) >= 0.6:
            want = t
    assert calibrate_threshold(scores, correct, 0.6, 0.9).chosen == want


def test_precision_holds_on_fresh_data():
    rng = np.random.default_rng(0)
    precision = []
    for _ in range(40):
        score, fresh = rng.random(2000), rng.random(20000)
        t = calibrate_threshold(score, rng.random(2000) < score, 0.8, 0.95).chosen
        kept = fresh >= t
        precision.append((rng.random(20000) < fresh)[kept].mean())
    # Below the nominal 95%: the lowest of many thresholds is picked.
    assert np.mean(np.array(precision) >= 0.8) >= 0.7
    assert min(precision) >= 0.76

"""Recall at a precision against every threshold tried, and scikit-learn's curve."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from pipeline.evaluate.bootstrap import Resampling, bootstrap
from pipeline.evaluate.pairs import recall_at_precision, recall_statistic

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), max_size=40)


def brute(pairs, precision):
    """Every score as a threshold, in fractions."""
    total = sum(times for _, positive, times in pairs if positive)
    best = Fraction(0)
    for threshold in {score for score, _, _ in pairs}:
        above = [(positive, times) for score, positive, times in pairs if score >= threshold]
        accepted = sum(times for _, times in above)
        right = sum(times for positive, times in above if positive)
        if accepted and right and Fraction(right, accepted) >= precision:
            best = max(best, Fraction(right, total))
    return float(best)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.sampled_from([Fraction(95, 100), Fraction(1, 2), Fraction(1)]))
def test_recall_is_the_best_over_all_thresholds(pairs, precision):
    scores, positive, times = (
        (np.array(x) for x in zip(*pairs, strict=True)) if pairs else ([],) * 3
    )
    found = recall_at_precision(
        np.asarray(scores, float),
        np.asarray(positive, bool),
        float(precision),
        np.asarray(times, int),
    )
    assert found.recall == pytest.approx(brute(pairs, precision), abs=1e-15)


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    positive = rng.random(400) < 0.3
    scores = np.round(rng.normal(size=400) + 3 * positive, 1)
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    good = precision[:-1] >= 0.95
    found = recall_at_precision(scores, positive)
    assert found.recall == pytest.approx(recall[:-1][good].max(), abs=1e-15)
    assert found.threshold == thresholds[good].min()
    assert 0.3 < found.recall < 1


def test_exactly_95_of_100_is_enough_and_19_of_21_is_not():
    assert recall_at_precision(np.zeros(20), np.arange(20) > 0).recall == 1
    assert recall_at_precision(np.zeros(100), np.arange(100) > 4).recall == 1
    assert recall_at_precision(np.zeros(21), np.arange(21) > 1).recall == 0


def test_edges():
    assert recall_at_precision(np.array([1.0, 2]), np.array([True, True])) == (1.0, 1.0)
    assert recall_at_precision(np.array([2.0, 1]), np.array([False, True])) == (0.0, np.inf)
    assert recall_at_precision(np.array([2.0]), np.array([False])) == (0.0, np.inf)
    assert recall_at_precision(np.empty(0), np.empty(0, bool)) == (0.0, np.inf)
    with pytest.raises(ValueError, match="NaN"):
        recall_at_precision(np.array([np.nan]), np.array([True]))


def test_pairs_of_one_query_are_drawn_together():
    scores, positive = np.array([3.0, 2, 1, 0]), np.array([True, False, True, True])
    statistic = recall_statistic(scores, positive, np.array([0, 1, 1, 2]), 0.9)
    assert statistic(np.array([1, 1, 1])).tolist() == [1 / 3]
    assert statistic(np.array([1, 0, 1])).tolist() == [1.0]
    assert statistic(np.array([0, 2, 1])).tolist() == [0.0]
    found = bootstrap(statistic, 3, Resampling(resamples=50))[0]
    assert found.low <= found.value <= found.high

"""Intervals over seeds and queries: a table worked by hand, coverage by simulation, verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.differences import crossed_estimate
from pipeline.evaluate.findings import decide, verdict_of


def test_a_table_worked_by_hand():
    # Means: seeds 2 and 6, queries 1, 4 and 7, all 4. No rest.
    table = np.array([[-1.0, 2.0, 5.0], [3.0, 6.0, 9.0]])
    found = crossed_estimate(table)
    # MS_seeds = 3 x (4 + 4) / 1 = 24, MS_queries = 2 x (9 + 0 + 9) / 2 = 18, over 6 figures.
    seeds, queries = 24 / 6, 18 / 6
    degrees = (seeds + queries) ** 2 / (seeds**2 / 1 + queries**2 / 2)
    half = student.ppf(0.975, degrees) * math.sqrt(seeds + queries)
    assert found.value == 4.0
    assert found.low == pytest.approx(4 - half)
    assert found.high == pytest.approx(4 + half)
    assert found.num == 3


def test_the_rest_is_taken_off_once():
    table = np.array([[1.0, 0.0], [0.0, 1.0]])  # seeds and queries agree, all is rest: MS 1 of 4
    found = crossed_estimate(table)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    more = crossed_estimate(np.array([[2.0, 0.0], [0.0, 1.0]]))
    assert more.low < more.value < more.high


def test_order_does_not_matter_and_a_higher_level_is_wider():
    table = np.random.default_rng(0).normal(size=(3, 50))
    one = crossed_estimate(table)
    other = crossed_estimate(table[::-1, ::-1])
    assert other == pytest.approx(one)
    assert crossed_estimate(table, 0.99).low < one.low


@pytest.mark.parametrize(("seed_sd", "query_sd"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_intervals_cover_the_truth_as_often_as_they_say(seed_sd, query_sd):
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        seeds = rng.normal(0, seed_sd, (3, 1)) / np.sqrt(10)
        table = 0.2 + seeds + rng.normal(0, query_sd, (1, 30)) + rng.normal(0, 1, (3, 30))
        found = crossed_estimate(table)
        covered.append(found.low <= 0.2 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.999


def test_a_shared_difference_of_queries_is_no_difference_of_seeds():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 5, (1, 200))
    a, b = (hard + shift + rng.normal(0, 0.1, (3, 200)) for shift in (0.2, 0.0))
    assert decide({"a": a, "b": b}, ["a"], ["b"]).verdict == "seen"
    assert crossed_estimate(a).low < 0 < crossed_estimate(a).high


@pytest.mark.parametrize("shape", [(1, 10), (3, 1), (5,)])
def test_too_few(shape):
    with pytest.raises(ValueError, match="at least 2 seeds x 2 queries"):
        crossed_estimate(np.zeros(shape))


def test_verdicts():
    assert verdict_of(Estimate(0.2, 0.1, 0.3, 5)) == "seen"
    assert verdict_of(Estimate(-0.2, -0.3, -0.1, 5)) == "not seen"
    assert verdict_of(Estimate(0.2, -0.1, 0.5, 5)) == "undecided"
    assert verdict_of(Estimate(0.2, 0.0, 0.5, 5)) == "undecided"


def test_a_difference_of_gains_and_a_relative_gain():
    flat = np.zeros((2, 4))
    values = {"a": 0.6, "b": 0.5, "c": 0.3, "d": 0.25}
    scores = {name: flat + value for name, value in values.items()}
    gain = decide(scores, ["a"], ["b"])
    assert gain.difference.value == pytest.approx(0.1)
    assert gain.gain == pytest.approx(0.2)
    more = decide(scores, ["a", "d"], ["b", "c"])
    assert more.difference.value == pytest.approx(0.05)
    assert math.isnan(more.gain)


def test_other_queries_are_refused():
    with pytest.raises(ValueError, match="expected the same seeds and queries"):
        decide({"a": np.zeros((2, 4)), "b": np.zeros((2, 5))}, ["a"], ["b"])

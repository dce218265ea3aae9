"""Intervals: by hand, paired, and how often they hold the truth on simulated queries."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluate.bootstrap import (
    Resampling,
    bootstrap,
    difference_of,
    draws,
    intervals,
    mean,
    paired_difference,
    ratios,
)

HOW = Resampling(seed=1, stream="test", resamples=400)


def test_every_draw_counts_all_queries_and_depends_on_seed_and_stream():
    drawn = np.array(list(draws(50, HOW)))
    assert drawn.shape == (400, 50)
    assert (drawn.sum(axis=1) == 50).all()
    assert np.array_equal(drawn, list(draws(50, HOW)))
    assert not np.array_equal(drawn, list(draws(50, HOW._replace(seed=2))))
    assert not np.array_equal(drawn, list(draws(50, HOW._replace(stream="other"))))


def test_mean_by_hand():
    found = mean(np.array([0.0, 1.0, 1.0, 0.0]), HOW)
    assert (found.value, found.num) == (0.5, 4)
    assert 0.0 <= found.low < 0.5 < found.high <= 1.0
    same = mean(np.full(7, 0.25), HOW)
    assert same[:3] == (0.25, 0.25, 0.25)


def test_interval_is_the_quantiles_of_the_resampled_means():
    values = np.random.default_rng(0).normal(size=30)
    means = [float(np.dot(counts, values)) / 30 for counts in draws(30, HOW)]
    found = mean(values, HOW)
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=1e-12)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=1e-12)


def test_ratio_divides_sums_and_is_undefined_without_a_denominator():
    top, bottom = np.array([[1.0, 0], [2, 0], [0, 0]]), np.array([[2.0, 0], [2, 0], [0, 0]])
    found = bootstrap(ratios(top, bottom), 3, HOW)
    assert found[0].value == 0.75
    assert np.isnan(found[0].low) is np.False_  # resamples of query 3 alone are left out
    assert np.isnan([found[1].value, found[1].low, found[1].high]).all()


def test_paired_difference_is_far_narrower_than_two_intervals():
    rng = np.random.default_rng(3)
    hard = rng.normal(size=200)
    a, b = hard + 0.1 + 0.01 * rng.normal(size=200), hard
    found = paired_difference(a, b, HOW)
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.01
    assert found.excludes_zero
    apart = bootstrap(difference_of(ratios(a), ratios(b)), 200, HOW)[0]
    assert apart == pytest.approx(found)
    assert mean(a, HOW).low < mean(b, HOW).high
    with pytest.raises(ValueError, match="200 and 3 queries"):
        paired_difference(a, b[:3], HOW)


def test_no_queries():
    with pytest.raises(ValueError, match="0 queries"):
        mean(np.empty(0), HOW)


def test_centred_interval_has_its_middle_at_the_figure():
    resampled = np.linspace(1.0, 2.0, 101)[:, None]
    found = intervals(np.array([1.0]), resampled, 9, 0.95, is_centred=True)[0]
    assert (found.value, found.num) == (1.0, 9)
    assert (found.low, found.high) == pytest.approx((0.525, 1.475))


@pytest.mark.parametrize(
    ("name", "draw", "truth"),
    [
        ("share", lambda rng: (rng.random(150) < 0.3).astype(float), 0.3),
        ("P@20", lambda rng: rng.binomial(20, rng.beta(1, 3, 150)) / 20, 0.25),
        ("skewed", lambda rng: rng.exponential(1.0, 150), 1.0),
        (
            "difference",
            lambda rng: rng.choice([-1.0, 0.0, 1.0], 150, p=[0.1, 0.75, 0.15]),
            0.05,
        ),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(name, draw, truth):
    """Of 95 % intervals over 240 simulated query sets, 91 to 98 % hold the truth."""
    how = Resampling(resamples=120)
    held = 0
    for world in range(240):
        found = mean(draw(np.random.default_rng(world)), how._replace(seed=world))
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 240 <= 0.98, f"{name}: {held / 240}"

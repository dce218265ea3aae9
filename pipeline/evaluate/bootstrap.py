"""Intervals by resampling queries, for one system and for the difference of two.

A resample is a vector of counts, how often each query was drawn. Every statistic is a function of
such counts, so systems that are compared see the same resamples and their difference is paired.

Source: SPEC D4; Efron and Tibshirani 1993, the percentile interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.hashing import stream_seed

Counts = NDArray[np.int64]
Statistic = Callable[[Counts], NDArray[np.float64]]


class Resampling(NamedTuple):
    """How resamples are drawn.

    Attributes:
        seed: of the draws.
        stream: what they are for; equal streams over equally many queries give equal draws.
        resamples: how many.
        level: share of the resamples inside an interval.
    """

    seed: int = 0
    stream: str = "bootstrap"
    resamples: int = 1000
    level: float = 0.95


class Estimate(NamedTuple):
    """A figure with its interval.

    Attributes:
        value: over all queries; NaN where it is not defined.
        low: lower end.
        high: upper end.
        num: queries.
    """

    value: float
    low: float
    high: float
    num: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of 0."""
        return self.low > 0 or self.high < 0


def draws(num: int, how: Resampling) -> Iterator[Counts]:
    """Counts of each resample, int64 (num,), each summing to ``num``.

    The draws depend on ``how`` and ``num`` only.
    """
    rng = np.random.default_rng(stream_seed(how.seed, how.stream))
    for _ in range(how.resamples):
        yield np.bincount(rng.integers(0, num, num), minlength=num)


def bootstrap(statistic: Statistic, num: int, how: Resampling) -> list[Estimate]:
    """Estimates of several statistics under the same resamples.

    Args:
        statistic: counts of each query, int64 (num,), to float64 (m,); NaN where undefined.
        num: queries.
        how: the draws.

    Returns:
        m estimates.

    Raises:
        ValueError: no queries.
    """
    if num < 1:
        raise ValueError("bootstrap: 0 queries, expected at least 1.")
    whole = statistic(np.ones(num, np.int64))
    resampled = np.array([statistic(counts) for counts in draws(num, how)])
    return intervals(whole, resampled, num, how.level)


def intervals(
    whole: NDArray[np.float64],
    resampled: NDArray[np.float64],
    num: int,
    level: float,
    is_centred: bool = False,
) -> list[Estimate]:
    """Percentile intervals.

    Args:
        whole: float64 (m,), the figures.
        resampled: float64 (resamples, m), the same under each resample; NaN where a resample holds
            nothing that the figure is about: left out.
        num: queries.
        level: share of the resamples inside.
        is_centred: shift the resamples so that their mean is the figure. For figures that repeated
            queries raise, such as average precision: an image drawn twice is ranked beside itself.
    """
    tail = (1 - level) / 2
    estimates = []
    for value, column in zip(whole.tolist(), resampled.T, strict=True):
        seen = column[~np.isnan(column)]
        if np.isnan(value) or len(seen) == 0:
            estimates.append(Estimate(value, float("nan"), float("nan"), num))
            continue
        shift = value - seen.mean() if is_centred else 0.0
        low, high = np.quantile(seen, [tail, 1 - tail]) + shift
        estimates.append(Estimate(value, float(low), float(high), num))
    return estimates


def ratios(
    numerators: NDArray[np.floating], denominators: NDArray[np.floating] | None = None
) -> Statistic:
    """Statistic: sum of numerators over sum of denominators, column by column.

    Args:
        numerators: (num, m), or (num,) for one column.
        denominators: of the same shape; None for the mean.
    """
    top = _columns(numerators)
    bottom = None if denominators is None else _columns(denominators)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        if bottom is None:
            return np.asarray(counts @ top / counts.sum())
        weight = counts @ bottom
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(weight > 0, counts @ top / weight, np.nan))

    return statistic


def _columns(values: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(values, np.float64)
    return wide[:, None] if wide.ndim == 1 else wide


def mean(values: NDArray[np.floating], how: Resampling) -> Estimate:
    """Mean over queries, float (num,), with its interval."""
    return bootstrap(ratios(values), len(values), how)[0]


def paired_difference(
    a: NDArray[np.floating], b: NDArray[np.floating], how: Resampling
) -> Estimate:
    """Mean of a - b over the same queries.

    Args:
        a: float (num,), a figure of each query for one system.
        b: the same for the other.
        how: the draws.

    Raises:
        ValueError: not the same queries.
    """
    if len(a) != len(b):
        raise ValueError(f"paired difference: {len(a)} and {len(b)} queries, expected the same.")
    return mean(np.asarray(a, np.float64) - np.asarray(b, np.float64), how)


def difference_of(first: Statistic, second: Statistic) -> Statistic:
    """Statistic: the first one less the second, under the same resample."""
    return lambda counts: first(counts) - second(counts)

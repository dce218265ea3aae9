"""Claims about trainings, decided by paired differences over seeds and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.differences import crossed_estimate

Verdict = Literal["seen", "not seen", "undecided"]
Floats = NDArray[np.float64]


class Decided(NamedTuple):
    """A claim as it came out.

    Attributes:
        difference: figures of the better arms less those of the worse ones, with its interval.
        gain: the difference over the figure of the worse arm; NaN for a difference of gains.
        verdict: seen when the whole interval is above 0, not seen when it is below, else undecided.
    """

    difference: Estimate
    gain: float
    verdict: Verdict


def decide(
    scores: Mapping[str, Floats], better: Sequence[str], worse: Sequence[str], level: float = 0.95
) -> Decided:
    """Decide whether some arms exceed others.

    Args:
        scores: arm -> float (seeds, queries), the same seeds and queries for all.
        better: arms that are added up.
        worse: arms that are taken off.
        level: of the interval.

    Raises:
        ValueError: tables of different shape.
    """
    shapes = {name: scores[name].shape for name in (*better, *worse)}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"scores of shapes {shapes}, expected the same seeds and queries.")
    table = sum(scores[name] for name in better) - sum(scores[name] for name in worse)
    difference = crossed_estimate(np.asarray(table), level)
    base = float(scores[worse[0]].mean()) if len(worse) == 1 else 0.0
    gain = difference.value / base if base > 0 else float("nan")
    return Decided(difference, gain, verdict_of(difference))


def verdict_of(difference: Estimate) -> Verdict:
    """What an interval says of the claim that a difference is above 0."""
    if difference.low > 0:
        return "seen"
    return "not seen" if difference.high < 0 else "undecided"

"""How costs grow with the number of rows: figures by stage and size, exponents between sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.harness import Measurement

COSTS = (
    "cpu_seconds",
    "shuffle_bytes",
    "spilled_bytes",
    "spilled_memory_bytes",
    "output_bytes",
    "rows_in",
)
"""Of a figure, beside its seconds and memory; see `spark_costs.Costs`."""


class Figure(NamedTuple):
    """One stage at one size.

    Attributes:
        stage: its name.
        rows: images or hashes of the corpus it ran on.
        values: seconds, peak_mib, task_mib, commit and those of ``COSTS``.
    """

    stage: str
    rows: int
    values: Mapping[str, Any]


def exponents(values: Mapping[int, float]) -> dict[str, float]:
    """Exponent e of rows**e from each size to the next.

    Args:
        values: rows -> seconds or bytes; a size with 0 is left out.

    Returns:
        ``1000000-10000000`` -> exponent, 1.0 where ten times the rows cost ten times as much.
    """
    sizes = sorted(size for size, value in values.items() if value > 0)
    return {
        f"{few}-{many}": math.log(values[many] / values[few]) / math.log(many / few)
        for few, many in itertools.pairwise(sizes)
    }


def measurement(
    size: Mapping[str, Any], found: Sequence[Figure], more: Mapping[str, Any] | None = None
) -> Measurement:
    """The record of a benchmark of growth.

    Systems are ``<stage>_<rows>``, rates are rows of the corpus a second of the clock.

    Args:
        size: what was measured.
        found: figures.
        more: further figures of quality.
    """
    stages = list(dict.fromkeys(figure.stage for figure in found))

    def of(name: str, stage: str) -> dict[int, float]:
        return {f.rows: f.values[name] for f in found if f.stage == stage}

    peak = {}
    for f in found:
        peak[f"{f.stage}_{f.rows}"] = f.values["peak_mib"]
        peak[f"{f.stage}_{f.rows}_task"] = f.values["task_mib"]
    costs = {
        name: {s: {str(rows): value for rows, value in of(name, s).items()} for s in stages}
        for name in COSTS
    }
    return Measurement(
        size=size,
        seconds={f"{f.stage}_{f.rows}": f.values["seconds"] for f in found},
        rate={f"{f.stage}_{f.rows}": f.rows / f.values["seconds"] for f in found},
        quality={
            "exponents_seconds": {stage: exponents(of("seconds", stage)) for stage in stages},
            "exponents_cpu_seconds": {s: exponents(of("cpu_seconds", s)) for s in stages},
            **costs,
            "commits": {f"{f.stage}_{f.rows}": f.values["commit"] for f in found},
            **(more or {}),
        },
        peak_mib=peak,
    )

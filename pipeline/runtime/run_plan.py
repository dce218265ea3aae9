"""What a run of the chain would cost at any corpus size, from measured rates. No Spark, no Java.

Core-seconds are those of the largest measured size, carried on by the growth exponent between the
two largest sizes; an exponent below 1 tells of fixed costs and is taken as 1. Bytes of shuffles
grow the same way, bytes written with the rows. The tables of a search of hashes are known for every
size (`kernels.block_keys`), so its work grows at least with rows times tables.

A stage without a rate is named and counts as nothing known, never as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.kernels.block_keys import plan_tables
from pipeline.runtime.run_rates import Rate

Kind = Literal["measured", "small", "stated", "not measured"]
SMALL_SHARE = 0.01
"""A rate from fewer than this share of the planned rows is marked as small."""


@dataclass(frozen=True)
class Corpus:
    """What is run on.

    Attributes:
        images: in the corpus.
        terms: of the dictionary.
    """

    images: float
    terms: float

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("terms", self.terms)):
            if not value >= 1:
                raise ValueError(f"--{name}: found {value:g}, expected 1 or more.")

    def rows_of(self, rate: Rate) -> float:
        """Units of a rate in this corpus."""
        known = {"images": self.images, "terms": self.terms, "once": rate.rows}
        return known[rate.unit]


@dataclass(frozen=True)
class Prices:
    """Prices, None where none is given.

    Attributes:
        core_hour: of a core for an hour.
        gb_month: of 10^9 bytes stored for a month.
        months: that what is written is kept.
    """

    core_hour: float | None = None
    gb_month: float | None = None
    months: float = 1.0

    def __post_init__(self) -> None:
        for name in ("core_hour", "gb_month", "months"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                option = "months" if name == "months" else "price-" + name.replace("_", "-")
                raise ValueError(f"--{option}: found {value:g}, expected 0 or more.")


@dataclass(frozen=True)
class StageCost:
    """A stage, or a part of one, in a plan; None where nothing is known.

    Attributes:
        stage: name.
        part: of the stage; empty for all of it.
        kind: where its rate is from.
        rows: it goes through.
        unit: of these rows.
        core_hours: of all processes.
        shuffle_bytes: written to shuffle files.
        mib_a_core: memory by core, MiB.
        output_bytes: written to tables or shards.
        cost: of the core-hours.
        rate: that all this is from.
    """

    stage: str
    kind: Kind
    part: str = ""
    rows: float | None = None
    unit: str = ""
    core_hours: float | None = None
    shuffle_bytes: float | None = None
    mib_a_core: float | None = None
    output_bytes: float | None = None
    cost: float | None = None
    rate: Rate | None = None


@dataclass(frozen=True)
class Total:
    """A sum, and what it lacks.

    Attributes:
        value: over those stages that know.
        lacking: names of those that do not.
    """

    value: float
    lacking: tuple[str, ...]


def plan_run(
    stages: Sequence[str], rates: Iterable[Rate], corpus: Corpus, prices: Prices
) -> list[StageCost]:
    """Costs of a chain.

    Args:
        stages: names in running order.
        rates: that are known.
        corpus: its size.
        prices: of cores and storage.

    Returns:
        one entry a stage, or one a part of it where parts have rates of their own.
    """
    of_stage: dict[str, list[Rate]] = {}
    for rate in rates:
        of_stage.setdefault(rate.stage, []).append(rate)
    found: list[StageCost] = []
    for stage in stages:
        known = of_stage.get(stage, [])
        found += [_cost(rate, corpus, prices) for rate in known]
        if not known:
            found.append(StageCost(stage, "not measured"))
    return found


def total(costs: Sequence[StageCost], name: str) -> Total:
    """Sum of one figure over a plan.

    Args:
        costs: the plan.
        name: attribute of `StageCost`.
    """
    values = [(cost, getattr(cost, name)) for cost in costs]
    return Total(
        sum(value for _, value in values if value is not None),
        tuple(name_of(cost) for cost, value in values if value is None),
    )


def name_of(cost: StageCost) -> str:
    """Stage, and which part of it."""
    return f"{cost.stage}, {cost.part}" if cost.part else cost.stage


def growth(rate: Rate, rows: float, exponent: float | None) -> float:
    """How many times the measured cost a number of rows costs.

    Args:
        rate: what was measured.
        rows: that are planned.
        exponent: of the growth; None for 1.
    """
    ratio = rows / rate.rows
    # To fewer rows than measured, fixed costs would be scaled away: rows alone count there.
    grown = float(ratio ** max(1.0, exponent or 1.0)) if ratio > 1 else ratio
    if rate.radius is None or ratio <= 1:
        return grown
    tables = [plan_tables(int(n), rate.radius).num_tables for n in (rows, rate.rows)]
    return max(grown, ratio * tables[0] / tables[1])


def _cost(rate: Rate, corpus: Corpus, prices: Prices) -> StageCost:
    rows = corpus.rows_of(rate)
    core_hours = rate.core_seconds * growth(rate, rows, rate.exponent) / 3600
    shuffled = None
    if rate.shuffle_bytes is not None:
        shuffled = rate.shuffle_bytes * growth(rate, rows, rate.shuffle_exponent)
    return StageCost(
        stage=rate.stage,
        kind=_kind(rate, rows),
        part=rate.part,
        rows=rows,
        unit=rate.unit,
        core_hours=core_hours,
        shuffle_bytes=shuffled,
        mib_a_core=rate.mib_a_core,
        output_bytes=None if rate.output_bytes is None else rate.output_bytes * rows / rate.rows,
        cost=None if prices.core_hour is None else core_hours * prices.core_hour,
        rate=rate,
    )


def _kind(rate: Rate, rows: float) -> Kind:
    if rate.is_stated:
        return "stated"
    return "small" if rate.rows < SMALL_SHARE * rows else "measured"

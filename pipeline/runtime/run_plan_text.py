"""The plan of a run as text, and its command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.config.load import load_config, preset_names
from pipeline.runtime.run_plan import Corpus, Prices, StageCost, Total, name_of, plan_run, total
from pipeline.runtime.run_rates import load_rates
from pipeline.stages.chain import build_chain

PAPER_TERMS = 218_879
"""Terms of the dictionary. Source: paper section 3.2.1."""
MARKS = {"measured": "", "small": "*", "stated": "s", "not measured": "-"}
_ASSUMPTIONS = (
    "Cores are like those of the machine named above. Core-seconds grow from the largest measured",
    "size by the exponent between the two largest, at least by rows. Bytes are those on disk,",
    "compressed. What waits (network, stores, stragglers) is in no figure. Storage is what stages",
    "write, once: the images that are given and older versions are not in it.",
    "Pretraining: make dry_run PRESET=paper.",
)
_HEAD = ("stage", "rows", "core-hours", "shuffled GB", "MiB a core", "written GB", "cost", "")


def parse(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of jobs/plan_run.py."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--images", type=float, required=True, help="of the corpus, e.g. 1.329e9")
    parser.add_argument("--terms", type=float, default=PAPER_TERMS, help="of the dictionary")
    presets = ", ".join(preset_names())
    parser.add_argument("--preset", default="paper", help=f"{presets}, or a .yaml file")
    parser.add_argument("--root", help="as for all jobs; a plan reads nothing there")
    parser.add_argument(
        "--set", action="append", default=[], metavar="inputs.x.path=y",
        help="a given input leaves out the stages that would make it",
    )  # fmt: skip
    parser.add_argument("--cores", type=float, help="of the cluster, to tell hours")
    parser.add_argument("--price-core-hour", type=float, help="of one core for an hour")
    parser.add_argument("--price-gb-month", type=float, help="of 10^9 bytes stored for a month")
    parser.add_argument("--months", type=float, default=1.0, help="that what is written is kept")
    return parser.parse_args(argv)


def run_plan(options: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        ValueError: a size, price or setting that cannot be.
    """
    if options.cores is not None and not options.cores >= 1:
        raise ValueError(f"--cores: found {options.cores:g}, expected 1 or more.")
    config = load_config(options.preset, options.set, options.root)
    stages = [stage.name for stage in build_chain(config)]
    corpus = Corpus(options.images, options.terms)
    prices = Prices(options.price_core_hour, options.price_gb_month, options.months)
    costs = plan_run(stages, load_rates(), corpus, prices)
    sys.stdout.write(text_of(costs, corpus, prices, options.cores))


def text_of(costs: Sequence[StageCost], corpus: Corpus, prices: Prices, cores: float | None) -> str:
    """All of the plan.

    Args:
        costs: of the stages.
        corpus: its size.
        prices: as they were given.
        cores: of the cluster, None if not told.
    """
    lines = [f"plan for {corpus.images:,.0f} images and {corpus.terms:,.0f} terms", ""]
    lines += _table([_HEAD, *(_row(cost) for cost in costs)])
    lines += ["", *_totals(costs, prices, cores), "", *_sources(costs), "", *_ASSUMPTIONS]
    return "\n".join(lines) + "\n"


def _row(cost: StageCost) -> tuple[str, ...]:
    rows = "" if cost.rows is None or cost.unit == "once" else f"{cost.rows:.4g} {cost.unit}"
    return (
        name_of(cost),
        rows,
        _number(cost.core_hours),
        _number(cost.shuffle_bytes, 1e9),
        _number(cost.mib_a_core),
        _number(cost.output_bytes, 1e9),
        _number(cost.cost),
        MARKS[cost.kind],
    )


def _number(value: float | None, unit: float = 1.0) -> str:
    """Three significant digits, thousands apart; a dash for what is not known."""
    if value is None:
        return "-"
    scaled = float(f"{value / unit:.3g}")
    return f"{scaled:,.0f}" if abs(scaled) >= 100 or scaled == 0 else f"{scaled:g}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _totals(costs: Sequence[StageCost], prices: Prices, cores: float | None) -> list[str]:
    hours, shuffled, written = (
        total(costs, name) for name in ("core_hours", "shuffle_bytes", "output_bytes")
    )
    lines = [
        f"core-hours: {_number(hours.value)}{_lacking(hours, costs)}",
        f"shuffled: {_number(shuffled.value, 1e12)} TB{_lacking(shuffled, costs)}",
        f"written: {_number(written.value, 1e12)} TB{_lacking(written, costs)}",
    ]
    if cores is not None:
        busy = _number(hours.value / cores)
        lines.append(f"hours on {cores:,.0f} cores: {busy} if none of them ever waits")
    if prices.core_hour is None:
        lines.append("cost of cores: give --price-core-hour")
    else:
        lines.append(
            f"cost of cores: {_number(hours.value * prices.core_hour)} at "
            f"{prices.core_hour:g} a core-hour{_lacking(hours, costs)}"
        )
    if prices.gb_month is None:
        lines.append("cost of storage: give --price-gb-month")
    else:
        stored = written.value / 1e9 * prices.gb_month * prices.months
        lines.append(
            f"cost of storage: {_number(stored)} at {prices.gb_month:g} a GB and month, "
            f"{prices.months:g} months{_lacking(written, costs)}"
        )
    return lines


def _lacking(found: Total, costs: Sequence[StageCost]) -> str:
    if not found.lacking:
        return ""
    return f", without {len(found.lacking)} of {len(costs)} entries that have no figure"


def _sources(costs: Sequence[StageCost]) -> list[str]:
    """Where rates are from, by kind."""
    lines = []
    for kind, title in (
        ("measured", "measured"),
        ("small", "* measured on less than 1% of these rows"),
        ("stated", "s computed in a docstring, not measured"),
    ):
        of_kind = [cost for cost in costs if cost.kind == kind]
        if of_kind:
            lines.append(f"{title}:")
            lines += [f"  {name_of(cost)}: {_source(cost)}" for cost in of_kind]
    missing = [cost.stage for cost in costs if cost.kind == "not measured"]
    if missing:
        lines.append(f"- not measured, in no total ({len(missing)}): {', '.join(missing)}")
    return lines


def _source(cost: StageCost) -> str:
    rate = cost.rate
    assert rate is not None
    text = rate.source
    if not rate.is_stated and rate.unit != "once":
        text += f"; {rate.rows:,.0f} {rate.unit}, {rate.basis}"
    if rate.exponent is not None:
        text += f", exponent {rate.exponent:.3g}"
    if rate.spilled_bytes:
        text += f", {_number(rate.spilled_bytes, 1e9)} GB spilled there"
    return f"{text}; {rate.note}" if rate.note else text

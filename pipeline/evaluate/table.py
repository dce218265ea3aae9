"""The table of results: rows with intervals, as JSON and as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.evaluate.bootstrap import Estimate


class Row(NamedTuple):
    """One figure.

    Attributes:
        task: set and task, e.g. ``held_out/labels``.
        metric: e.g. ``recall@5 tail``.
        system: what was measured, or ``a - b`` for a paired difference.
        estimate: the figure with its interval.
    """

    task: str
    metric: str
    system: str
    estimate: Estimate


def to_json(rows: Sequence[Row], about: dict[str, Any], notes: Sequence[str]) -> str:
    """JSON of a table: ``about`` (model, data, parameters), ``notes`` and ``rows``.

    Figures that are not defined are null.
    """
    listed = [
        {
            "task": row.task,
            "metric": row.metric,
            "system": row.system,
            "value": _number(row.estimate.value),
            "low": _number(row.estimate.low),
            "high": _number(row.estimate.high),
            "num": row.estimate.num,
        }
        for row in rows
    ]
    record = {"about": about, "notes": list(notes), "rows": listed}
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def to_markdown(rows: Sequence[Row], title: str, notes: Sequence[str]) -> str:
    """Markdown of a table, one section a task, one line a metric and system."""
    parts = [f"# {title}", "", "Figures with 95 % intervals from resampled queries.", ""]
    parts += [f"- {note}" for note in notes]
    for task in dict.fromkeys(row.task for row in rows):
        parts += ["", f"## {task}", "", "| metric | system | value | 95 % interval | queries |"]
        parts += ["| --- | --- | ---: | ---: | ---: |"]
        parts += [_line(row) for row in rows if row.task == task]
    return "\n".join(parts) + "\n"


def _line(row: Row) -> str:
    value, low, high, num = row.estimate
    interval = "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
    shown = "not defined" if math.isnan(value) else f"{value:.4f}"
    return f"| {row.metric} | {row.system} | {shown} | {interval} | {num:,} |"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Verdicts of the ablations with their intervals, where a root has them."""

from __future__ import annotations

from pipeline.report import charts
from pipeline.report.blocks import Column, View, chart, table
from pipeline.runtime.ablations.releases import HOME
from pipeline.runtime.ablations.report import (
    ARM_HEADS,
    FINDING_HEADS,
    FORMAT,
    arm_cells,
    finding_cells,
    notes,
)
from pipeline.runtime.explorer.sampling import Reading
from pipeline.runtime.manifest import POINTER

_CHOICES = frozenset({"verdict", "metric"})


def ablations(reading: Reading) -> View | None:
    """Findings by each metric and the arms behind them; None where nothing was compared."""
    storage = reading.catalog.storage
    if not storage.exists(f"{HOME}/{POINTER}"):
        return None
    path = f"{HOME}/{storage.read_json(f'{HOME}/{POINTER}')['path']}/results.json"
    record = storage.read_json(path)
    if record["format"] != FORMAT or not record["findings"]:
        return None
    main = record["metric"]
    names = [finding["name"].replace("_", " ") for finding in record["findings"]]
    found = [finding["by_metric"][main] for finding in record["findings"]]
    values = [(f["value"], f["low"], f["high"]) for f in found]
    text = f"Difference of {main} with its interval; above 0 the claim holds. From {path}."
    option = charts.intervals(names, values, f"difference of {main}")
    metrics = list(record["findings"][0]["by_metric"])
    rows = [(m, *cells) for m in metrics for cells in finding_cells(record, m)]
    columns = [Column(head, is_choice=head in _CHOICES) for head in ("metric", *FINDING_HEADS)]
    about = f"What was trained, and its {main}."
    heads = [Column(head) for head in ARM_HEADS]
    return View(
        "ablations",
        "Ablations",
        " ".join(notes(record)),
        [
            chart("findings", "Findings", text, option, 90 + 60 * len(names)),
            table("by-metric", "By metric", "Every finding by every metric.", columns, rows),
            table("arms", "Arms", about, heads, arm_cells(record)),
        ],
    )

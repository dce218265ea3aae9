"""Label distribution before and after resampling (paper, Figure 5; SPEC R2)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.report import charts
from pipeline.report.blocks import Block, Column, View, chart, facts, table
from pipeline.runtime.explorer.sampling import Reading


def labels(reading: Reading) -> View | None:
    """Distributions and every label's numbers; from tables of one row a label."""
    if not reading.has("resampling_report", "label_map"):
        return None
    report = reading.catalog.read("resampling_report")
    label_map = reading.catalog.read("label_map", ["label_id", "cluster_id", "name", "l1_interest"])
    joined = report.join(label_map, "label_id", join_type="inner").sort_by("label_id")
    before = joined["num_before"].to_numpy()
    expected, realised = joined["expected_after"].to_numpy(), joined["realised_after"].to_numpy()
    ranked = {"before": before, "expected after": expected, "realised after": realised}
    curves = charts.label_distribution(ranked)
    cloud = charts.expected_and_realised(expected, realised, joined["name"].to_pylist())
    blocks: list[Block] = [
        facts("policy", "Resampling", "", _policy(reading)),
        chart(
            "distribution",
            "Images a label, by rank (paper, Figure 5)",
            "Both axes are logarithmic, and each series is ranked by itself. Resampling lifts the "
            "tail and lowers the head. " + _shape(before, realised),
            curves,
            400,
        ),
        chart(
            "realised",
            "Every label: expected and drawn",
            "Points off the line are chance: copies are whole numbers. "
            + _spread(expected, realised),
            cloud,
            400,
        ),
        _table(joined),
    ]
    text = "How many images carry each label, before and after the rare ones are shown more often."
    return View("labels", "Labels", text, blocks)


def _policy(reading: Reading) -> list[tuple[str, str]]:
    pairs = []
    if reading.has("sampling_policy"):
        (row,) = reading.catalog.read("sampling_policy").to_pylist()
        pairs += [(name.replace("_", " "), _said(value)) for name, value in row.items()]
    for name, title in (("samples", "images drawn"), ("resampled_out", "images not drawn")):
        if reading.has(name):
            pairs.append((title, f"{reading.catalog.tables[name].num_rows:,}"))
    if reading.has("samples"):
        copies = reading.catalog.tables["samples"].totals.get("copies", 0)
        pairs.append(("samples", f"{copies:,}"))
    return pairs


def _said(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shape(before: np.ndarray, realised: np.ndarray) -> str:
    """The commonest label against the median one, before and after."""
    ratios = [
        float(counts.max(initial=0)) / max(float(np.median(counts)), 1.0) if len(counts) else 0.0
        for counts in (before, realised)
    ]
    return (
        f"The commonest label has {ratios[0]:,.1f} times the images of the median one before, and "
        f"{ratios[1]:,.1f} times after."
    )


def _spread(expected: np.ndarray, realised: np.ndarray) -> str:
    """Standardised difference of the labels, where Poisson chance would give one."""
    if not len(expected):
        return ""
    away = (realised - expected) / np.sqrt(np.maximum(expected, 1.0))
    return (
        "(realised - expected) / sqrt(expected): root mean square "
        f"{np.sqrt(np.mean(away**2)):.2f}, largest {np.abs(away).max():.2f}."
    )


def _table(joined: pa.Table) -> Block:
    columns = [
        Column("label", "link"),
        Column("interest", is_choice=True),
        Column("before", "count"),
        Column("expected after", "real"),
        Column("realised after", "count"),
        Column("realised / before", "real"),
    ]
    rows = [
        [
            [row["name"], f"#clusters/{row['cluster_id']}"],
            row["l1_interest"],
            row["num_before"],
            row["expected_after"],
            row["realised_after"],
            row["realised_after"] / row["num_before"] if row["num_before"] else None,
        ]
        for row in joined.to_pylist()
    ]
    text = "Names lead to the cluster."
    return table("labels", "Every label", text, columns, rows, (2, "desc"))

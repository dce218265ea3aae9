"""Rejected rows: what was set aside, by table and reason, with some of the rows."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report.blocks import Column, Value, View, table
from pipeline.runtime.explorer.sampling import Reading

_OTHERS = ("rejected_pairs", "dropped_terms", "uncategorised_terms", "unlabelled_images",
           "dropped_images", "excluded_images", "resampled_out", "dropped_labels")  # fmt: skip
"""What steps behind the checks of rows set aside."""


def rejected(reading: Reading) -> View | None:
    """Reasons of all tables that hold what was set aside, and the first rows of each reason.

    Cost: reasons stand in the manifests; at most ``max_rejected`` rows of each table are read.
    """
    tables = sorted(reading.catalog.tables)
    names = [name for name in tables if name.startswith("rejected_") and name not in _OTHERS]
    if not names:
        return None
    reasons = [
        [name, reason, number]
        for name in (*names, *_OTHERS)
        if reading.has(name)
        for reason, number in reading.catalog.tables[name].reasons.items()
    ]
    columns = [Column("table", is_choice=True), Column("reason"), Column("rows", "count")]
    rows = list(_rows(reading, names))
    blocks = [
        table(
            "reasons", "By table and reason", _total(reading, names), columns, reasons, (2, "desc")
        ),
        table(
            "rows",
            "Rejected rows",
            f"The first {reading.params.max_rejected} of each table.",
            [
                Column("table", is_choice=True),
                Column("reason", is_choice=True),
                Column("row"),
                Column("detail"),
            ],
            rows,
        ),
    ]
    text = (
        "Nothing is dropped silently: every row that was set aside is in a table with its reason."
    )
    return View("rejected", "Rejected rows", text, blocks)


def _total(reading: Reading, names: list[str]) -> str:
    total = sum(reading.catalog.tables[name].num_rows for name in names)
    return (
        f"{total:,} input rows were rejected by {len(names)} checks; beside them stand the tables "
        "of what later steps set aside."
    )


def _rows(reading: Reading, names: list[str]) -> Iterator[list[Value]]:
    for name in names:
        left = reading.params.max_rejected
        for batch in reading.sample(name, ["row_key", "reason", "detail"]):
            part = batch.slice(0, left)
            for row in part.to_pylist():
                yield [name, row["reason"], row["row_key"], row["detail"]]
            left -= part.num_rows
            if left <= 0:
                break

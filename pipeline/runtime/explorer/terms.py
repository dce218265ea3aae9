"""Visual concreteness: its distribution, the boundary, and the terms around it with images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.bottom_k import BottomK
from pipeline.kernels.nested import flatten_annotations
from pipeline.report import charts
from pipeline.report.blocks import Block, Column, Value, View, chart, gallery, group, table
from pipeline.runtime.explorer.sampling import Reading

_TEXT = (
    "Concreteness is the held-out accuracy of a small classifier that tells images with a term "
    "from images without it: whether the term can be seen by this embedding, not whether people "
    "call it concrete. Terms at or above the boundary make the visual dictionary."
)


def concreteness(reading: Reading) -> View | None:
    """Scores of all terms, and examples of those around the boundary.

    Cost: the term tables whole (218,879 rows in the paper), a sample of ``selected_annotations``.
    """
    if not reading.has("term_concreteness", "terms"):
        return None
    scored = _scored(reading)
    boundary = reading.config.select_visual_terms.boundary
    values = scored["concreteness"].to_numpy(zero_copy_only=False).astype(np.float64)
    num = int(np.isfinite(values).sum())
    kept = int((values >= boundary).sum())
    about = f"{num:,} terms were scored, {kept:,} of them at or above the boundary of {boundary:g}."
    histogram = charts.concreteness(values, boundary)
    blocks = [chart("distribution", "Distribution over terms (paper, Figure 3)", about, histogram)]
    blocks += [*_sweep(reading), *_around(reading, scored, boundary)]
    blocks.append(_table(reading, scored, boundary))
    return View("concreteness", "Concreteness", _TEXT, blocks)


def _scored(reading: Reading) -> pa.Table:
    """Terms with scores and what became of them; by concreteness, then term_id."""
    terms = reading.catalog.read("terms", ["term_id", "text"])
    scores = reading.catalog.read("term_concreteness").drop_columns(["seed"])
    joined = scores.join(terms, "term_id", join_type="inner")
    status = joined["status"]
    if reading.has("dropped_terms"):
        dropped = reading.catalog.read("dropped_terms")
        at = pc.index_in(joined["term_id"], value_set=dropped["term_id"])
        reasons = dropped["reason"].take(at)
        status = pc.if_else(pc.is_valid(reasons), reasons, pa.scalar("kept"))
    joined = joined.set_column(joined.column_names.index("status"), "status", status)
    return joined.sort_by([("concreteness", "descending"), ("term_id", "ascending")])


def _sweep(reading: Reading) -> list[Block]:
    if not reading.has("concreteness_sweep"):
        return []
    swept = reading.catalog.read("concreteness_sweep").sort_by("boundary")
    shares = {}
    for name in ("num_terms", "num_annotations", "num_images"):
        values = swept[name].to_numpy().astype(np.float64)
        shares[name.removeprefix("num_")] = values / max(values.max(initial=1.0), 1.0)
    metric = swept["metric"].to_numpy(zero_copy_only=False).astype(np.float64)
    boundary = reading.config.select_visual_terms.boundary
    option = charts.sweep(swept["boundary"].to_numpy(), shares, boundary, metric)
    text = "Share of terms, annotations and images that each decision boundary would keep."
    return [chart("sweep", "Choice of the boundary", text, option)]


def _around(reading: Reading, scored: pa.Table, boundary: float) -> list[Block]:
    """Terms next to the boundary, the most and the least concrete, each with example images."""
    valid = scored.filter(pc.is_valid(scored["concreteness"]))
    values = valid["concreteness"].to_numpy()
    kept, num = int((values >= boundary).sum()), reading.params.num_terms
    parts = {
        "below": ("Just below the boundary", kept, kept + num),
        "above": ("At and just above the boundary", max(kept - num, 0), kept),
        "most": ("Most concrete", 0, num),
        "least": ("Least concrete", max(len(values) - num, 0), len(values)),
    }
    rows = {name: valid[start:stop].to_pylist() for name, (_, start, stop) in parts.items()}
    wanted = [row["term_id"] for part in rows.values() for row in part]
    strips = _examples(reading, np.array(sorted(set(wanted)), np.int64), wanted)
    return [
        gallery(f"terms-{name}", title, "", [_group(row, strips) for row in rows[name]])
        for name, (title, _, _) in parts.items()
    ]


def _group(row: dict[str, Value], strips: dict[int, list[Value]]) -> dict[str, Value]:
    error = row["standard_error"]
    text = f"concreteness {row['concreteness']:.3f}" + (
        f" ± {error:.3f}" if error is not None else ""
    )
    text += f", {row['num_positives']:,} positive images"
    return group(row["text"], text, strips.get(row["term_id"], []))


def _examples(
    reading: Reading, wanted: NDArray[np.int64], order: list[int]
) -> dict[int, list[Value]]:
    """Pictures of each wanted term, from a sample of the selected annotations."""
    if not reading.has("selected_annotations"):
        return {}
    lowest = BottomK(reading.params.num_examples, reading.seed, "explorer_terms")
    for batch in reading.sample("selected_annotations", ["image_id", "annotations"]):
        flat = flatten_annotations(batch["annotations"])
        is_wanted = np.isin(flat.term_ids, wanted)
        lowest.add(batch["image_id"], flat.rows[is_wanted], flat.term_ids[is_wanted])
    members = lowest.members()
    return reading.strips({term: members.get(term, []) for term in order})


def _table(reading: Reading, scored: pa.Table, boundary: float) -> Block:
    columns = [
        Column("term"),
        Column("outcome", is_choice=True),
        Column("concreteness", "real"),
        Column("standard error", "real"),
        Column("Wilson lower bound", "real"),
        Column("positives", "count"),
        Column("test items", "count"),
    ]
    limit = reading.params.max_terms
    text = "Every scored term with the reason why it is not in the dictionary."
    if scored.num_rows > limit:
        values = scored["concreteness"].to_numpy(zero_copy_only=False).astype(np.float64)
        away = np.where(np.isfinite(values), np.abs(values - boundary), np.inf)
        nearest = np.sort(np.argsort(away, kind="stable")[:limit])
        text = f"The {limit:,} of {scored.num_rows:,} terms that are nearest to the boundary."
        scored = scored.take(pa.array(nearest))
    names = (
        "text",
        "status",
        "concreteness",
        "standard_error",
        "wilson_lower",
        "num_positives",
        "num_test",
    )
    rows = zip(*(scored[name].to_pylist() for name in names), strict=True)
    return table("terms", "Terms", text, columns, rows)

"""The funnel of a root, from the counts that its stages left."""

from __future__ import annotations

import pyarrow.compute as pc

from pipeline.report.funnel import FunnelStep
from pipeline.runtime.catalog import Catalog


def funnel_steps(catalog: Catalog) -> list[FunnelStep]:
    """The funnel from the stages' counts; steps whose tables are missing are left out."""
    tables, steps = catalog.tables, []
    if "annotations" in tables:
        found = tables["annotations"]
        num = _used_terms(catalog, "annotations")
        given = found.totals["annotations"]
        steps.append(FunnelStep("annotations", num, "terms", found.num_rows, given))
    label_stage = catalog.stages.get("label_images")
    if label_stage is not None:
        counts = label_stage.counts
        visual = tables["visual_terms"].num_rows if "visual_terms" in tables else 0
        kinds = (
            ("selected", _used_terms(catalog, "selected_annotations"), "terms"),
            ("visual dictionary", visual, "terms"),
            ("clusters", tables["clusters"].num_rows, "clusters"),
            ("interest restriction", num_labels_in_use(catalog), "clusters"),
        )
        for (name, num, kind), key in zip(
            kinds, ("selected", "in_visual_dictionary", "clustered", "restricted"), strict=True
        ):
            unit = "labels" if kind == "clusters" else "annotations"
            images, labels = counts[f"images.{key}"], counts[f"{unit}.{key}"]
            steps.append(FunnelStep(name, num, kind, images, labels))
    if "training_images" in tables:
        found, num = tables["training_images"], tables["label_map"].num_rows
        given = found.totals["label_ids"]
        steps.append(FunnelStep("near-duplicates out", num, "labels", found.num_rows, given))
    if "resampling_report" in tables and "samples" in tables:
        report = catalog.read("resampling_report")
        realised = pc.sum(report["realised_after"]).as_py() or 0
        num = pc.sum(pc.greater(report["realised_after"], 0)).as_py() or 0
        copies = tables["samples"].totals["copies"]
        steps.append(FunnelStep("resampled", num, "labels", copies, realised))
    return steps


def _used_terms(catalog: Catalog, table: str) -> int:
    seen: set[int] = set()
    for batch in catalog.batches(table, ["annotations"]):
        flat = pc.list_flatten(batch["annotations"]).combine_chunks()
        seen |= set(pc.unique(pc.struct_field(flat, "term_id")).to_pylist())
    return len(seen)


def num_labels_in_use(catalog: Catalog) -> int:
    """Distinct clusters that some image has as a label."""
    seen: set[int] = set()
    for batch in catalog.batches("image_labels", ["cluster_ids"]):
        seen |= set(pc.unique(pc.list_flatten(batch["cluster_ids"])).to_pylist())
    return len(seen)

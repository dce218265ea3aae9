"""What came in, what is left and why: the funnel of terms, labels and images (SPEC M2)."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report import charts
from pipeline.report.blocks import Block, Column, Value, View, chart, facts, table
from pipeline.report.funnel import FunnelStep
from pipeline.runtime.explorer.sampling import Reading
from pipeline.runtime.funnel import funnel_steps

_FUNNEL = (
    "Images with at least one term or label after each step, and how many they carry. After "
    "resampling an image may count often."
)
_DROPS = (
    "Everything that a step set aside, from the ledgers of the stages: the share is of the rows "
    "that came into the stage. What was kept stands under Run."
)


def overview(reading: Reading) -> View:
    """Facts of the release, the funnel and all drop reasons; from manifests and two columns."""
    steps = funnel_steps(reading.catalog)
    blocks: list[Block] = [facts("facts", "", "", _facts(reading))]
    if steps:
        blocks += [_chart(steps), _steps(steps)]
    blocks.append(_drops(reading))
    text = "What came in, what each step left, and why the rest was dropped."
    return View("overview", "Overview", text, blocks)


def _facts(reading: Reading) -> Iterator[tuple[str, str]]:
    tables = reading.catalog.tables
    for title, name in (
        ("images read", "images"),
        ("images without near-duplicates", "unique_images"),
        ("images in the dataset", "training_images"),
        ("terms in the dictionary", "terms"),
        ("visual terms", "visual_terms"),
        ("clusters", "clusters"),
        ("labels", "label_map"),
        ("shards", "written_shards"),
    ):
        if name in tables:
            yield title, f"{tables[name].num_rows:,}"
    if "written_shards" in tables:
        totals = tables["written_shards"].totals
        yield "samples in the release", f"{totals['num_samples']:,}"
        yield "size of the release", f"{totals['num_bytes'] / 1e6:,.1f} MB"


def _chart(steps: list[FunnelStep]) -> Block:
    names = [step.name for step in steps]
    option = charts.bars(names, {"images": [step.num_images for step in steps]}, "images")
    height = 60 + 34 * len(steps)
    return chart("funnel-chart", "Images after each step", _FUNNEL, option, height)


def _steps(steps: list[FunnelStep]) -> Block:
    columns = [
        Column("step"),
        Column("terms or labels in use", "count"),
        Column("of"),
        Column("images", "count"),
        Column("an image", "real"),
    ]
    rows = [[s.name, s.num_classes, s.kind, s.num_images, s.per_image] for s in steps]
    return table("funnel", "The funnel", "", columns, rows)


def _drops(reading: Reading) -> Block:
    columns = [
        Column("step"),
        Column("of", is_choice=True),
        Column("reason"),
        Column("dropped", "count"),
        Column("share", "percent"),
    ]
    return table(
        "drops", "Why things were dropped", _DROPS, columns, _reasons(reading), (3, "desc")
    )


def _reasons(reading: Reading) -> Iterator[list[Value]]:
    for name, manifest in sorted(reading.catalog.stages.items()):
        for line in manifest.ledger:
            for reason, number in line.dropped.items():
                yield [name, line.unit, reason, number, number / max(line.rows_in, 1)]
        # Annotations that labelling drops are counted, not kept as rows: no ledger has them.
        counted = {
            k: n for k, n in manifest.counts.items() if k.startswith(("annotations.d", "labels.d"))
        }
        units = {line.unit for line in manifest.ledger}
        for key, number in counted.items():
            unit, _, reason = key.partition(".dropped.")
            if number and unit not in units:
                came_in = manifest.counts.get(f"{unit}.selected", 0) or manifest.counts.get(
                    f"{unit}.clustered", 0
                )
                yield [name, unit, reason, number, number / came_in if came_in else None]

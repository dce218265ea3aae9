"""How the run went: seconds a stage, the ledger, versions, parameters and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipeline.report import charts
from pipeline.report.blocks import Block, Column, Value, View, chart, facts, table, text
from pipeline.runtime.explorer.sampling import Reading
from pipeline.runtime.logs import redact
from pipeline.runtime.manifest import StageManifest

_LEDGER = (
    "Each stage proves on what it wrote that nothing got lost: rows in are rows out and rows "
    "dropped. A mismatch refuses to publish."
)
_LISTED = ("files", "shards")
"""Lists of a release's manifest that have a row a file."""


def run(reading: Reading) -> View:
    """Timings, ledger, tables, parameters, configuration and the release's manifest."""
    stages = sorted(reading.catalog.stages.values(), key=lambda m: (m.finished, m.stage))
    blocks = [*_timings(stages), _ledger(stages), _tables(stages), _parameters(stages)]
    configuration = redact(yaml.safe_dump(reading.config.model_dump(mode="json"), sort_keys=False))
    about = "As this report resolved it; what made each table stands above."
    blocks.append(text("configuration", "Configuration", about, configuration))
    blocks += _manifest(reading)
    return View("run", "Run", "How long each stage took, and that its ledger closes.", blocks)


def _timings(stages: list[StageManifest]) -> Iterator[Block]:
    seconds = sum(m.seconds for m in stages)
    commits = sorted({m.commit for m in stages if m.commit})
    pairs = [("stages", f"{len(stages)}"), ("seconds in all", f"{seconds:,.1f}")]
    if stages:
        pairs += [("first finished", stages[0].finished), ("last finished", stages[-1].finished)]
    pairs.append(("code of commit", ", ".join(commit[:12] for commit in commits) or "unknown"))
    yield facts("facts", "", "", pairs)
    by_time = sorted(stages, key=lambda m: (-m.seconds, m.stage))
    names = [m.stage for m in by_time]
    option = charts.bars(names, {"seconds": [m.seconds for m in by_time]}, "seconds")
    about = "Seconds that each stage took when its tables were made, longest first."
    yield chart("timings", "Time by stage", about, option, 60 + 22 * len(names))


def _ledger(stages: list[StageManifest]) -> Block:
    columns = [
        Column("stage"),
        Column("of"),
        Column("in", "count"),
        Column("out", "count"),
        Column("dropped", "count"),
        Column("by reason"),
        Column("closes"),
    ]
    rows = []
    for manifest in stages:
        for line in manifest.ledger:
            dropped = sum(line.dropped.values())
            reasons = ", ".join(f"{reason} {number:,}" for reason, number in line.dropped.items())
            closes = "yes" if line.rows_in == line.rows_out + dropped else "NO"
            rows.append(
                [manifest.stage, line.unit, line.rows_in, line.rows_out, dropped, reasons, closes]
            )
    return table("ledger", "Ledger", _LEDGER, columns, rows)


def _tables(stages: list[StageManifest]) -> Block:
    columns = [
        Column("table"),
        Column("rows", "count"),
        Column("megabytes", "real"),
        Column("files", "count"),
        Column("stage"),
        Column("version"),
        Column("seconds", "real"),
        Column("finished"),
    ]
    rows = [
        [
            name,
            found.num_rows,
            sum(file.num_bytes for file in found.files) / 1e6,
            len(found.files),
            manifest.stage,
            manifest.version,
            manifest.seconds,
            manifest.finished,
        ]
        for manifest in stages
        for name, found in manifest.tables.items()
    ]
    return table("tables", "Tables and versions", "What each stage published.", columns, rows)


def _parameters(stages: list[StageManifest]) -> Block:
    rows = [
        [manifest.stage, name, redact(value)]
        for manifest in stages
        for name, value in _flat(manifest.params)
    ]
    columns = [Column("stage", is_choice=True), Column("parameter"), Column("value")]
    about = "Parameters that each stage ran with, from its manifest."
    return table("parameters", "Parameters", about, columns, rows)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)


def _manifest(reading: Reading) -> Iterator[Block]:
    """The release's manifest; of lists of files the first, as there is one a shard."""
    stage = reading.catalog.stages.get("write_release")
    if stage is None:
        return
    folder = stage.tables["written_shards"].path.rsplit("/", 1)[0]
    name = f"{folder}/manifest.json"
    if not reading.catalog.storage.exists(name):
        return
    manifest: dict[str, Value] = reading.catalog.storage.read_json(name)
    for key in _LISTED:
        if key in manifest and len(manifest[key]) > 8:
            more = f"... and {len(manifest[key]) - 8:,} more"
            manifest[key] = [*manifest[key][:8], more]
    content = redact(json.dumps(manifest, indent=1))
    yield text("manifest", "Manifest of the release", f"{name}, below the root.", content)

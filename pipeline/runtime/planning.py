"""What a run would do: every stage's version, and which stages are current. No Spark, no JVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.base import Params
from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage
from pipeline.runtime.manifest import (
    StageManifest,
    TableManifest,
    home_of,
    read_current,
    stage_version,
)
from pipeline.stages.stage import Stage
from schemas.contract import Table

SOURCE = "source_"


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a run.

    Attributes:
        stage: the stage.
        params: its resolved parameters.
        inputs: input table -> version; absent optional tables are not in it.
        version: content identity of its output.
        current: its published manifest where that has this version and layout, else None.
    """

    stage: Stage
    params: Params
    inputs: Mapping[str, str]
    version: str
    current: StageManifest | None


def params_of(config: RunConfig, stage: Stage) -> Params:
    """The section of the configuration that holds a stage's parameters."""
    section = stage.section or stage.name
    params = getattr(config, section, None)
    assert isinstance(params, stage.params), f"{stage.name}: no section {section!r} in RunConfig"
    return params


def plan_chain(
    chain: Sequence[Stage], config: RunConfig, storage: Storage, sources: Mapping[str, str]
) -> list[PlannedStage]:
    """Plan a chain whose every stage is brought up to date in turn.

    Args:
        chain: stages in running order.
        config: the run.
        storage: its root.
        sources: ``source_*`` table -> content identity, of the configured ones.

    Raises:
        ValueError: a stage needs a table that no earlier stage makes.
    """
    versions: dict[str, str] = dict(sources)
    planned = []
    for stage in chain:
        planned.append(plan_stage(stage, config, storage, versions))
        versions |= {table.name: planned[-1].version for table in stage.outputs}
    return planned


def plan_stage(
    stage: Stage, config: RunConfig, storage: Storage, versions: Mapping[str, str]
) -> PlannedStage:
    """Plan one stage over given versions of its inputs; see :func:`plan_chain`."""
    optional = {table.name for table in stage.optional}
    inputs = {t.name: versions[t.name] for t in stage.reads if t.name in versions}
    missing = [t.name for t in stage.reads if t.name not in inputs and t.name not in optional]
    if missing:
        raise ValueError(f"{stage.name}: {_how_to_get(missing)}")
    params = params_of(config, stage)
    version = stage_version(stage, params.model_dump(mode="json"), inputs)
    found = read_current(storage, home_of(stage))
    layout = config.runtime.num_buckets
    if found is not None and (found.version, found.layout) != (version, layout):
        found = None
    return PlannedStage(stage, params, inputs, version, found)


def _how_to_get(missing: Sequence[str]) -> str:
    sources = [name.removeprefix(SOURCE) for name in missing if name.startswith(SOURCE)]
    tables = [name for name in missing if not name.startswith(SOURCE)]
    parts = []
    if sources:
        parts.append(
            f"inputs {sources} are not given; set inputs.<name>.path in the preset or with --set"
        )
    if tables:
        parts.append(f"tables {tables} are not there; run the stages that make them first")
    return ", and ".join(parts) + ". Contracts: schemas/TABLES.md."


def published_tables(storage: Storage, chain: Sequence[Stage]) -> dict[str, StageManifest]:
    """Table -> manifest of the stage that published it, for every published table of a chain."""
    found: dict[str, StageManifest] = {}
    for stage in chain:
        manifest = read_current(storage, home_of(stage))
        if manifest is not None:
            found |= dict.fromkeys(manifest.tables, manifest)
    return found


def table_manifests(
    tables: Sequence[Table], published: Mapping[str, StageManifest]
) -> dict[str, TableManifest | None]:
    """Manifests of tables by name; None where a table was never published."""
    return {
        t.name: published[t.name].tables[t.name] if t.name in published else None for t in tables
    }

"""Which stages led to a table, with which parameters: the walk from a stage back to the sources."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.files.storage import Storage
from pipeline.runtime.manifest import MANIFEST, StageManifest
from pipeline.stages.stage import StageRecord


def stage_history(
    storage: Storage, inputs: Mapping[str, str], published: Mapping[str, StageManifest]
) -> list[StageRecord]:
    """Every stage that led to some tables.

    Args:
        storage: the root.
        inputs: table -> version; ``source_*`` tables end the walk.
        published: table -> manifest of the stage that published it.

    Returns:
        records, each behind those of the stages it reads; the order depends on names alone. A stage
        whose table was since replaced is looked up by its version, and left out where that is gone:
        its version still stands among the inputs of the stages that read it.
    """
    found: dict[tuple[str, str], StageRecord] = {}

    def visit(table: str, version: str) -> None:
        manifest = manifest_of(storage, published.get(table), table, version)
        if manifest is None or (manifest.stage, manifest.version) in found:
            return
        for name in sorted(manifest.inputs):
            visit(name, manifest.inputs[name])
        found[manifest.stage, manifest.version] = StageRecord(
            stage=manifest.stage,
            version=manifest.version,
            code_version=manifest.code_version,
            params=manifest.params,
            inputs=dict(sorted(manifest.inputs.items())),
            ledger=[line.model_dump() for line in manifest.ledger],
        )

    for name in sorted(inputs):
        visit(name, inputs[name])
    return list(found.values())


def manifest_of(
    storage: Storage, current: StageManifest | None, table: str, version: str
) -> StageManifest | None:
    """Manifest of the stage that made one version of a table.

    Args:
        storage: the root.
        current: of the stage that published the table last; None for a table that none did.
        table: its name.
        version: which; found in the layout of ``current``.

    Returns:
        None where it was never there or was collected.
    """
    if current is None or current.version == version:
        return current
    home = current.tables[table].path.partition("/")[0]
    name = f"{home}/{version}-{current.layout:05d}/{MANIFEST}"
    if not storage.exists(name):
        return None
    return StageManifest.model_validate_json(storage.read_bytes(name))

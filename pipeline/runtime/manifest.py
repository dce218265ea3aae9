"""What a finished stage says of itself, and the identity that decides whether it is current.

A stage's *version* is a hash of its name, its code version, its parameters and the versions of its
inputs; nothing of the machine, the time or the layout enters it, so that two runs of equal content
agree. The *layout* (number of buckets) only names the folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.files.storage import Storage
from pipeline.stages.stage import Stage, content_version

POINTER = "CURRENT.json"
MANIFEST = "stage.json"
VERSION_FOLDER = re.compile(r"[0-9a-f]{12}-\d{5}")
"""Folder name of one version of a stage; other pointers below a root are not stages'."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FileStats(_Record):
    """One file of a table, as it was found when it was read back."""

    name: str
    bucket: int
    num_rows: int
    num_bytes: int
    totals: dict[str, int] = {}
    """Summed list lengths, and sums of non-negative integer columns, by column."""
    reasons: dict[str, int] = {}
    """Rows by `reason`, for tables that have that column."""
    breaches: list[str] = []
    """What does not fit the contract."""


class TableManifest(_Record):
    """A published table."""

    name: str
    path: str
    """Folder below the root."""
    num_buckets: int
    num_rows: int
    totals: dict[str, int]
    reasons: dict[str, int]
    files: list[FileStats]


class LedgerLine(_Record):
    """One conservation law, as it came out."""

    unit: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int]


class StageManifest(_Record):
    """A finished run of a stage."""

    stage: str
    version: str
    layout: int
    code_version: int = 0
    """Version of the stage's code; 0 in manifests that were written before it was kept."""
    params: dict[str, Any]
    inputs: dict[str, str]
    """Input table -> version."""
    tables: dict[str, TableManifest]
    counts: dict[str, int]
    ledger: list[LedgerLine]
    seconds: float
    finished: str
    """UTC time, ISO 8601."""
    commit: str


def stage_version(stage: Stage, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Content identity of a stage's output.

    Args:
        stage: the stage.
        params: its resolved parameters, JSON values.
        inputs: input table -> version.

    Returns:
        12 hex digits.
    """
    return content_version(stage.name, stage.version, params, inputs)


def home_of(stage: Stage) -> str:
    """Folder of a stage below the root: its name, unless it says otherwise."""
    return stage.folder or stage.name


def folder_of(stage: Stage, version: str, layout: int) -> str:
    """Folder of one version of a stage, below the root."""
    return f"{home_of(stage)}/{version}-{layout:05d}"


def read_current(storage: Storage, home: str) -> StageManifest | None:
    """Manifest that a stage's pointer names; None when it was never published.

    Raises:
        ValueError: the pointer names a manifest that is not there.
    """
    pointer = f"{home}/{POINTER}"
    if not storage.exists(pointer):
        return None
    path = storage.read_json(pointer)["path"]
    name = f"{home}/{path}/{MANIFEST}"
    if not storage.exists(name):
        raise ValueError(
            f"{storage.uri}/{pointer}: names {path}, whose {MANIFEST} is missing. "
            "Was a version removed by hand? Remove the pointer and run the stage again."
        )
    return StageManifest.model_validate_json(storage.read_bytes(name))


def read_version(storage: Storage, stage: Stage, version: str, layout: int) -> StageManifest | None:
    """Manifest of a finished version, named by the pointer or not; None where there is none."""
    name = f"{folder_of(stage, version, layout)}/{MANIFEST}"
    if not storage.exists(name):
        return None
    return StageManifest.model_validate_json(storage.read_bytes(name))


def finish(storage: Storage, stage: Stage, manifest: StageManifest) -> str:
    """Write the manifest: the version is whole, and nothing names it yet.

    Returns:
        its folder below the root.
    """
    folder = folder_of(stage, manifest.version, manifest.layout)
    text = manifest.model_dump_json(indent=1).encode()
    storage.write_bytes_atomic(f"{folder}/{MANIFEST}", text)
    return folder


def publish(storage: Storage, stage: Stage, manifest: StageManifest) -> None:
    """Write the manifest, then move the pointer: the one step that readers see."""
    folder = finish(storage, stage, manifest)
    home = home_of(stage)
    pointer = {"version": manifest.version, "path": folder.removeprefix(home + "/")}
    storage.write_json_atomic(f"{home}/{POINTER}", pointer)

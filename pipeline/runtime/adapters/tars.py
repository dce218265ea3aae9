"""webdataset and img2dataset: ``00000.tar`` with key.jpg, key.txt, key.json, beside 00000.parquet.

A sample's files stand together in the archive. img2dataset's Parquet has a row for each url, those
that could not be downloaded among them. Source: webdataset's format description; img2dataset's
README, "Output format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.imports import ImportParams
from pipeline.files.storage import Storage
from pipeline.kernels.import_reasons import ImportReason
from pipeline.kernels.source_names import is_image, split_key, split_suffix
from pipeline.kernels.source_records import parse_object, read_texts
from pipeline.kernels.tar_foreign import ForeignMember, foreign_members
from pipeline.kernels.tar_read import Fault, TarReader
from pipeline.runtime.adapters.units import Refused, Sample, Unit, refuse

_SUCCESS = "success"
_ROW_COLUMNS = ("key", "status", "error_message", "url", "caption", "license")


@dataclass
class _Group:
    """Members of one key."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    fault: tuple[str, str] | None = None

    def add(self, extension: str, member: ForeignMember) -> None:
        """Take a member; the first fault counts."""
        fault = (member.fault.kind, member.fault.found) if member.fault else None
        if fault is None and extension in self.parts:
            fault = (ImportReason.DUPLICATE_MEMBER, extension)
        self.fault = self.fault or fault
        self.parts.setdefault(extension, member.data)


def read_unit(source: Storage, unit: Unit, params: ImportParams) -> Iterator[Sample | Refused]:
    """Samples of one tar, streamed; holds one sample and the shard's rows."""
    yield from (item for item in unit.items if isinstance(item, Refused))
    if not unit.name:
        return
    shard = split_suffix(unit.name)[0]
    rows, faults = _rows(source, f"{shard}.parquet")
    yield from faults
    seen = set()
    with source.open_read(unit.name) as handle:
        most = params.limits.max_bytes
        reader = TarReader(handle.read, source.num_bytes(unit.name), most)
        for group in _groups(foreign_members(reader)):
            name = f"{shard}/{group.key}"
            if group.key in seen:
                yield refuse(name, ImportReason.DUPLICATE_NAME)
                continue
            seen.add(group.key)
            yield _sample(name, group, rows.get(group.key, {}), params)
    if not reader.is_complete:
        for fault in reader.faults or [Fault("tar_truncated", "no end blocks", "two")]:
            yield refuse(unit.name, fault.kind, fault.found, is_sample=False)
    yield from _lost(shard, rows, seen)


def _groups(members: Iterable[ForeignMember]) -> Iterator[_Group]:
    group: _Group | None = None
    for member in members:
        key, extension = split_key(member.name)
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key)
        group.add(extension, member)
    if group is not None:
        yield group


def _sample(
    name: str, group: _Group, row: dict[str, Any], params: ImportParams
) -> Sample | Refused:
    if group.fault is not None:
        return refuse(name, *group.fault)
    pictures = [part for part in group.parts if is_image(part)]
    if not pictures:
        return refuse(name, ImportReason.MISSING_IMAGE, ", ".join(sorted(group.parts)))
    if len(pictures) > 1:
        return refuse(name, ImportReason.DUPLICATE_MEMBER, ", ".join(sorted(pictures)))
    record = parse_object(group.parts.get("json", b"{}"))
    if record is None:
        return refuse(name, ImportReason.BAD_JSON, group.parts["json"][:80])
    try:
        caption = group.parts.get("txt", b"").decode()
    except UnicodeDecodeError:
        return refuse(name, ImportReason.BAD_TEXT, "txt")
    texts = read_texts([{"caption": caption}, record, row], params.columns)
    return Sample(name, texts, data=group.parts[pictures[0]])


def _rows(source: Storage, name: str) -> tuple[dict[str, dict[str, Any]], list[Refused]]:
    """img2dataset's row of each key, where the file is there."""
    if not source.exists(name):
        return {}, []
    try:
        with source.open_read(name) as handle:
            file = pq.ParquetFile(handle)
            columns = [c for c in _ROW_COLUMNS if c in file.schema_arrow.names]
            rows = file.read(columns=columns).to_pylist() if "key" in columns else []
    except pa.ArrowException as error:
        return {}, [refuse(name, ImportReason.BAD_PARQUET, error, is_sample=False)]
    return {str(row["key"]): row for row in rows}, []


def _lost(shard: str, rows: dict[str, dict[str, Any]], seen: set[str]) -> Iterator[Refused]:
    """Rows without a sample: failed downloads, and what a broken tar no longer has."""
    for key, row in rows.items():
        if key in seen:
            continue
        status = row.get("status")
        if status in (_SUCCESS, None):
            yield refuse(f"{shard}/{key}", ImportReason.MISSING_IMAGE, "a row without its member")
        else:
            told = row.get("error_message") or status
            yield refuse(f"{shard}/{key}", ImportReason.NOT_DOWNLOADED, told)

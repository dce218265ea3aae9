"""A look at a source: its form, its tables, and an identity of what is there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.imports import ImportParams, Kind
from pipeline.files.storage import Storage
from pipeline.kernels.source_names import is_image, split_suffix
from pipeline.runtime.adapters.hub_parquet import picture_column
from pipeline.runtime.adapters.sheets import TABLE_NAMES
from pipeline.runtime.adapters.units import Refused, walk

_PARQUETS_LOOKED_AT = 16
"""Files that are opened until one has pictures: the first ones may be broken."""


@dataclass(frozen=True)
class Survey:
    """What one walk over a source found.

    Attributes:
        kind: its form.
        tables: names of the tables that name pictures; of folders only.
        version: 12 hex digits of names, sizes and change times of all files, and the parameters.
    """

    kind: Kind
    tables: tuple[str, ...]
    version: str


def survey(source: Storage, params: ImportParams, leave_out: str, preset: str) -> Survey:
    """Walk over a source once.

    Args:
        source: root.
        params: parameters of the import; ``kind`` and ``table`` win over what is found.
        leave_out: see ``walk``.
        preset: its floor of terms is part of the version.

    Raises:
        ValueError: there are neither tars, nor Parquet with pictures, nor pictures; or the named
            table is not there.
    """
    own = params.model_dump_json(exclude={"processes"})
    digest = hashlib.sha256(f"import 1\0{own}\0{preset}".encode())
    tables: list[str] = []
    parquets: list[str] = []
    found: set[str] = set()
    for item in walk(source, leave_out):
        if isinstance(item, Refused):
            digest.update(f"{item.key}\0{item.reason}\0".encode())
            continue
        digest.update(f"{item.name}\0{item.num_bytes}\0{item.changed}\0".encode(errors="replace"))
        suffix = split_suffix(item.name)[1]
        found.add("image" if is_image(suffix) else suffix)
        if item.name.rpartition("/")[2] in TABLE_NAMES:
            tables.append(item.name)
        elif suffix == "parquet" and len(parquets) < _PARQUETS_LOOKED_AT:
            parquets.append(item.name)
    if params.table is not None:
        tables = [params.table]
        if not source.exists(params.table):
            raise ValueError(f"--table {params.table}: no such file below {source.uri}.")
    kind = params.kind or _kind(source, found, parquets)
    return Survey(kind, tuple(tables) if kind == "folder" else (), digest.hexdigest()[:12])


def _kind(source: Storage, found: set[str], parquets: list[str]) -> Kind:
    if "tar" in found:
        return "webdataset"
    if any(_has_pictures(source, name) for name in parquets):
        return "parquet"
    if "image" in found:
        return "folder"
    raise ValueError(
        f"{source.uri}: found files of {sorted(found) or 'no kind'}, expected tars of webdataset "
        "or img2dataset, Parquet with a column of pictures, or pictures."
    )


def _has_pictures(source: Storage, name: str) -> bool:
    try:
        with source.open_read(name) as handle:
            return picture_column(pq.read_schema(handle)) is not None
    except pa.ArrowException:
        return False

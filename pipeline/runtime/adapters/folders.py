"""A folder of pictures: with CSV or JSON lines that name them, or JSON and text side-cars.

A picture that a table names takes its texts from the row; another one from ``a.json``, ``a.txt``,
``a.jpg.json`` or ``a.jpg.txt`` beside it.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import xxhash

from pipeline.config.imports import ImportParams
from pipeline.files.fetch import FetchPolicy, fetch
from pipeline.files.storage import Storage
from pipeline.kernels.import_reasons import ImportReason
from pipeline.kernels.source_names import is_image, split_suffix, unsafe_name
from pipeline.kernels.source_records import parse_object, read_texts
from pipeline.runtime.adapters.sheets import read_sheet
from pipeline.runtime.adapters.units import Entry, Listed, Refused, Sample, Unit, refuse

_SIDE_CARS = ("json", "txt")


def list_units(
    source: Storage,
    entries: Iterable[Entry | Refused],
    tables: Iterable[str],
    params: ImportParams,
) -> Iterator[Unit]:
    """Chunks of pictures, those that tables name first."""
    items = _list_items(source, entries, tuple(tables), params)
    while chunk := tuple(itertools.islice(items, params.samples_per_part)):
        yield Unit(items=chunk)


def _list_items(
    source: Storage,
    entries: Iterable[Entry | Refused],
    tables: tuple[str, ...],
    params: ImportParams,
) -> Iterator[Listed | Refused]:
    named: set[int] = set()
    for table in tables:
        for item in read_sheet(source, table, params):
            if isinstance(item, Refused):
                yield item
            elif (code := _code(item.name)) in named:
                yield refuse(item.name, ImportReason.DUPLICATE_NAME, table)
            else:
                named.add(code)
                yield item
    for _, group in itertools.groupby(entries, _folder_of):
        yield from _list_folder(group, named, tables)


def _code(name: str) -> int:
    return xxhash.xxh64_intdigest(os.fsencode(name))


def _folder_of(item: Entry | Refused) -> str:
    return (item.name if isinstance(item, Entry) else item.key).rpartition("/")[0]


def _list_folder(
    group: Iterable[Entry | Refused], named: set[int], tables: tuple[str, ...]
) -> Iterator[Listed | Refused]:
    """Pictures of one folder that no table names, with their side-cars; side-cars without one."""
    pictures, side_cars = [], defaultdict(list)
    for item in group:
        if isinstance(item, Refused):
            yield item
            continue
        stem, suffix = split_suffix(item.name)
        if is_image(suffix):
            pictures.append(item.name)
        elif suffix in _SIDE_CARS and item.name not in tables:
            side_cars[stem].append(item.name)
    used = set()
    for name in pictures:
        stem = split_suffix(name)[0]
        used |= {stem, name}
        if _code(name) in named:
            continue
        if (why := unsafe_name(name)) is not None:
            yield refuse(name, ImportReason.UNSAFE_NAME, why)
        else:
            yield Listed(name, side_cars=(*side_cars.get(name, ()), *side_cars.get(stem, ())))
    for stem in sorted(side_cars.keys() - used):
        for name in side_cars[stem]:
            yield refuse(name, ImportReason.MISSING_FILE, "no picture beside it")


def read_unit(source: Storage, unit: Unit, params: ImportParams) -> Iterator[Sample | Refused]:
    """Samples of one chunk; holds one picture."""
    for item in unit.items:
        yield item if isinstance(item, Refused) else _sample(source, item, params)


def _sample(source: Storage, item: Listed, params: ImportParams) -> Sample | Refused:
    found = open_picture(source, item.name, params, item.name)
    if isinstance(found, Refused):
        return found
    records: list[dict[str, Any]] = [item.record]
    for name in item.side_cars:
        record = _side_car(source, name, item.name, params)
        if isinstance(record, Refused):
            return record
        records.append(record)
    return Sample(item.name, read_texts(records, params.columns), *found)


def _side_car(
    source: Storage, name: str, key: str, params: ImportParams
) -> dict[str, Any] | Refused:
    data = _read(source, name, params.max_text_bytes, key)
    if isinstance(data, Refused):
        return data
    if len(data) > params.max_text_bytes:
        return refuse(key, ImportReason.BAD_TEXT, f"{name}: more than {params.max_text_bytes} B")
    if name.lower().endswith(".json"):
        record = parse_object(data)
        return refuse(key, ImportReason.BAD_JSON, data[:80]) if record is None else record
    try:
        return {"caption": data.decode("utf-8-sig")}
    except UnicodeDecodeError:
        return refuse(key, ImportReason.BAD_TEXT, name)


def open_picture(
    source: Storage, name: str, params: ImportParams, key: str
) -> tuple[bytes | None, str] | Refused:
    """Content (None where pictures are not checked) and uri of a picture below the source.

    Args:
        source: root.
        name: below it, as a stranger gave it.
        params: how much is read.
        key: what a refusal is told for.
    """
    if (why := unsafe_name(name)) is not None:
        return refuse(key, ImportReason.UNSAFE_NAME, why)
    data = _read(source, name, params.limits.max_bytes if params.check != "none" else 0, key)
    if isinstance(data, Refused):
        return data
    uri = source.path(name) if source.is_local else f"{source.uri}/{name}"
    return (None if params.check == "none" else data), uri


def _read(source: Storage, name: str, max_bytes: int, key: str) -> bytes | Refused:
    """Content of a file, one byte more than allowed at most; links that leave are not followed."""
    uri = source.path(name) if source.is_local else f"{source.uri}/{name}"
    if source.is_local:
        real, root = os.path.realpath(uri), os.path.realpath(source.root)
        if not PurePosixPath(real).is_relative_to(root):
            return refuse(key, ImportReason.OUTSIDE_SOURCE, f"{name} -> {real}")
    try:
        return fetch(uri, max_bytes, FetchPolicy())
    except FileNotFoundError:
        return refuse(key, ImportReason.MISSING_FILE, name)
    except (PermissionError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        return refuse(key, ImportReason.UNREADABLE_FILE, error)

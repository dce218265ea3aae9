"""Tables that name pictures: CSV with a header, JSON lines as Hugging Face's imagefolder has them.

Read row by row; a file name is relative to the folder of its table. Source: Hugging Face datasets,
"ImageFolder"; RFC 4180.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from pipeline.config.imports import ImportParams
from pipeline.files.storage import Storage
from pipeline.kernels.import_reasons import ImportReason
from pipeline.kernels.source_names import unsafe_name
from pipeline.kernels.source_records import FIELDS, file_name_of, is_utf8, parse_object
from pipeline.runtime.adapters.units import Listed, Refused, refuse

TABLE_NAMES = ("metadata.csv", "metadata.jsonl")


def read_sheet(source: Storage, name: str, params: ImportParams) -> Iterator[Listed | Refused]:
    """Rows of one table, in order.

    Raises:
        ValueError: the CSV has no column of file names.
    """
    folder = name.rpartition("/")[0]
    with source.open_read(name) as handle:
        rows = _json_rows if name.lower().endswith((".jsonl", ".ndjson", ".json")) else _csv_rows
        for place, record in rows(handle, name, params):
            if isinstance(record, Refused):
                yield record
            else:
                yield _listed(folder, place, record, params)


def _listed(
    folder: str, place: str, record: dict[str, Any], params: ImportParams
) -> Listed | Refused:
    file_name = file_name_of(record, params.columns)
    if file_name is None:
        return refuse(place, ImportReason.BAD_ROW, "no file name")
    if (why := unsafe_name(file_name)) is not None:
        return refuse(place, ImportReason.UNSAFE_NAME, f"{why}: {file_name}")
    file_name = "/".join(part for part in file_name.split("/") if part not in ("", "."))
    return Listed(f"{folder}/{file_name}" if folder else file_name, record)


def _csv_rows(
    handle: IO[bytes], name: str, params: ImportParams
) -> Iterator[tuple[str, dict[str, Any] | Refused]]:
    text = io.TextIOWrapper(handle, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.DictReader(text)
    found = list(reader.fieldnames or ())
    wanted = [params.columns[k] for k in ("file_name",) if k in params.columns]
    wanted = wanted or list(FIELDS["file_name"])
    if not set(wanted) & set(found):
        raise ValueError(
            f"{name}: no column of file names, found {found}, expected one of {wanted}. "
            "Name it with --column file_name=COLUMN."
        )
    while True:
        place = f"{name}:{reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, refuse(place, ImportReason.BAD_ROW, error)
            continue
        yield place, _checked(place, row)


def _checked(place: str, row: dict[str, Any]) -> dict[str, Any] | Refused:
    if None in row or None in row.values():
        return refuse(place, ImportReason.BAD_ROW, "other columns than the header")
    if not all(map(is_utf8, row.values())):
        return refuse(place, ImportReason.BAD_TEXT)
    return row


def _json_rows(
    handle: IO[bytes], name: str, params: ImportParams
) -> Iterator[tuple[str, dict[str, Any] | Refused]]:
    most, number = params.max_text_bytes, 0
    while line := handle.readline(most + 1):
        number += 1
        place = f"{name}:{number}"
        if len(line) > most:
            while line and not line.endswith(b"\n"):
                line = handle.readline(most)
            yield place, refuse(place, ImportReason.BAD_JSON, f"more than {most} bytes")
        elif line.strip():
            record = parse_object(line)
            yield (
                place,
                refuse(place, ImportReason.BAD_JSON, line) if record is None else record,
            )

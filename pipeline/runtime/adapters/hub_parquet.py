"""Hugging Face style Parquet: a picture column of struct<bytes, path>, captions, classes by number.

Names of classes stand in the file's metadata, key ``huggingface``. Source: Hugging Face datasets,
"Image" and "ClassLabel" features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.imports import ImportParams
from pipeline.files.storage import Storage
from pipeline.kernels.import_reasons import ImportReason
from pipeline.kernels.source_names import IMAGE_SUFFIXES, split_suffix
from pipeline.kernels.source_records import FIELDS, read_texts
from pipeline.runtime.adapters.folders import open_picture
from pipeline.runtime.adapters.units import Refused, Sample, Unit, refuse

_BATCH_ROWS = 64
"""Rows with their pictures that are held at once."""


def read_unit(source: Storage, unit: Unit, params: ImportParams) -> Iterator[Sample | Refused]:
    """Rows of one file, streamed."""
    yield from (item for item in unit.items if isinstance(item, Refused))
    if not unit.name:
        return
    stem = split_suffix(unit.name)[0]
    row = 0
    try:
        with source.open_read(unit.name) as handle:
            file = pq.ParquetFile(handle)
            picture = picture_column(file.schema_arrow)
            if picture is None:
                found = ", ".join(file.schema_arrow.names)
                yield refuse(unit.name, ImportReason.BAD_PARQUET, f"columns {found}", False)
                return
            names = class_names(file.schema_arrow)
            columns = [picture, *_text_columns(file.schema_arrow, picture, params)]
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                for values in batch.to_pylist():
                    key = f"{stem}/{row:09d}"
                    row += 1
                    yield _sample(source, key, values.pop(picture), values, names, params)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        told = f"after row {row}: {error}"
        yield refuse(unit.name, ImportReason.BAD_PARQUET, told, is_sample=False)


def picture_column(schema: pa.Schema) -> str | None:
    """The column that holds pictures: a struct with bytes, or binary under a picture's name."""
    structs = [
        f.name
        for f in schema
        if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0
    ]
    plain = [
        f.name
        for f in schema
        if (pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type))
        and f.name in ("image", "bytes", *IMAGE_SUFFIXES)
    ]
    return next(iter((*structs, *plain)), None)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its classes, as the metadata tells; columns without are left out."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
        named = {column: _names_of(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in named.items() if names}


def _names_of(feature: Any) -> list[str]:
    """Of a ClassLabel, or of a list of them in any of its spellings."""
    if isinstance(feature, list):
        return _names_of(feature[0]) if feature else []
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature.get("names") or []]
    return (
        _names_of(feature["feature"]) if isinstance(feature, dict) and "feature" in feature else []
    )


def _text_columns(schema: pa.Schema, picture: str, params: ImportParams) -> list[str]:
    wanted = {c for columns in FIELDS.values() for c in columns} | set(params.columns.values())
    return [name for name in schema.names if name in wanted and name != picture]


def _sample(
    source: Storage,
    key: str,
    picture: Any,
    values: dict[str, Any],
    names: dict[str, list[str]],
    params: ImportParams,
) -> Sample | Refused:
    texts = read_texts([values], params.columns, names)
    if not isinstance(picture, dict):
        picture = {"bytes": picture}
    if picture.get("bytes") is not None:
        return Sample(key, texts, data=picture["bytes"])
    if picture.get("path"):
        found = open_picture(source, picture["path"], params, key)
        return found if isinstance(found, Refused) else Sample(key, texts, *found)
    return refuse(key, ImportReason.MISSING_IMAGE)

"""Reading a user's tables: any Spark-readable source, brought to the contract's columns.

The schema is checked before any work, all breaches at once; values are left to ingest.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import struct
from collections.abc import Mapping

import pyarrow.parquet as pq
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config.inputs import Inputs, Source
from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.frames import spark_path
from schemas.contract import Column, Table
from schemas.inputs import SOURCES

logger = logging.getLogger(__name__)

PACKAGE = "package://"
HASHED_BYTES = 256 << 20
"""Inputs up to this size are identified by their whole content."""
_LENIENT = {
    "string": (T.StringType, T.BinaryType, T.VarcharType),
    "int": (T.IntegerType, T.LongType, T.ShortType),
    "bigint": (T.LongType, T.IntegerType, T.ShortType),
    "float": (T.FloatType, T.DoubleType, T.DecimalType),
    "boolean": (T.BooleanType,),
    "binary": (T.BinaryType,),
}
"""Types that convert without loss of meaning; ingest finds values that do not."""


def source_of(inputs: Inputs, table: Table) -> Source | None:
    """The configured source of a ``source_*`` table, None when absent."""
    source: Source | None = getattr(inputs, table.name.removeprefix("source_"))
    return source


def identity(source: Source, root: Storage) -> str:
    """Identity of a source's content, without a JVM.

    Of small inputs the whole content is hashed; of large ones names, sizes and Parquet footers,
    which hold offsets and statistics of every column chunk (other formats: modification times).

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: there are no files, or files that are not whole Parquet; names them.
    """
    digest = hashlib.sha256(source.model_dump_json(exclude={"path"}).encode())
    if source.path is None or source.snapshot is not None:
        return digest.hexdigest()[:16]
    files = [
        (storage, name, int(storage.fs.size(storage.path(name))))
        for storage, name in _files(local_path(source.path, root))
    ]
    if not files:
        raise ValueError(f"{source.path}: holds no files, expected {source.format} files.")
    if source.format == "parquet":
        _check_parquet(source.path, files)
    is_small = sum(size for _, _, size in files) <= HASHED_BYTES
    for storage, name, size in files:
        digest.update(f"{name.rsplit('/', 1)[-1]}:{size}:".encode())
        digest.update(storage.read_bytes(name) if is_small else _footer(storage, name, size))
    return digest.hexdigest()[:16]


def source_versions(inputs: Inputs, root: Storage) -> dict[str, str]:
    """``source_*`` table -> content identity, of the configured inputs."""
    versions = {}
    for table in SOURCES:
        source = source_of(inputs, table)
        if source is not None:
            versions[table.name] = identity(source, root)
    return versions


def local_path(path: str, root: Storage) -> str:
    """Path of a source; a file of the project is copied below the root first.

    Spark cannot read inside the zip that a cluster runs from, and executors have no checkout.
    """
    if not path.startswith(PACKAGE):
        return path
    package, _, name = path.removeprefix(PACKAGE).partition("/")
    data = importlib.resources.files(package).joinpath(*name.split("/")).read_bytes()
    place = f"_sources/{hashlib.sha256(data).hexdigest()[:12]}/{name.rsplit('/', 1)[-1]}"
    if not root.exists(place):
        root.write_bytes_atomic(place, data)
    return root.path(place) if root.is_local else f"{root.uri}/{place}"


def num_rows(source: Source, root: Storage) -> int | None:
    """Rows of Parquet files from their footers; None for other sources."""
    if source.path is None or source.format != "parquet":
        return None
    total = 0
    for storage, name in _files(local_path(source.path, root)):
        with storage.open_read(name) as handle:
            total += pq.read_metadata(handle).num_rows
    return total


def read_source(spark: SparkSession, source: Source, table: Table, root: Storage) -> DataFrame:
    """A source with the contract's columns, absent nullable ones as null.

    Raises:
        ValueError: columns are missing or of a type that does not convert; all are listed.
    """
    if source.table is not None:
        df, place = spark.table(source.table), source.table
    else:
        assert source.path is not None
        place = local_path(source.path, root)
        reader = spark.read.options(**source.options)
        df = reader.format(source.format).load(_spark_uri(place))
    # All at once: an expression means the table's own columns, not ones renamed before it.
    df = df.withColumns({name: F.expr(text) for name, text in source.columns.items()})
    found = {field.name: field.dataType for field in df.schema.fields}
    breaches = [b for c in table.columns if (b := _breach(c, found, source.format))]
    if breaches:
        raise ValueError(
            f"{place}: does not fit {table.name}, {len(breaches)} breaches: {'; '.join(breaches)}. "
            f"Found columns {sorted(found)}. Rename with inputs.<name>.columns; "
            "contract: schemas/inputs.py."
        )
    return df.select(*[_select(c, found) for c in table.columns])


def _breach(column: Column, found: Mapping[str, T.DataType], file_format: str) -> str | None:
    if column.name not in found:
        return None if column.nullable else f"{column.name} is missing, expected {column.type}"
    kind = found[column.name]
    if _fits(column.type, kind) or isinstance(kind, T.NullType):
        return None
    if file_format == "csv" and isinstance(kind, T.StringType):
        return None
    return f"{column.name} is {kind.simpleString()}, expected {column.type}"


def _fits(expected: str, kind: T.DataType) -> bool:
    if expected == "array<float>":
        if isinstance(kind, T.BinaryType):
            return True
        return isinstance(kind, T.ArrayType) and _fits("float", kind.elementType)
    if expected.startswith("array<struct<"):
        if not (isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.StructType)):
            return False
        fields = {f.name: f.dataType for f in kind.elementType.fields}
        wanted = _struct_fields(expected)
        return all(n in fields and _fits(t, fields[n]) for n, t in wanted.items())
    if expected.startswith("array<"):
        return isinstance(kind, T.ArrayType) and _fits(expected[6:-1], kind.elementType)
    return isinstance(kind, _LENIENT[expected])


def _struct_fields(kind: str) -> dict[str, str]:
    """Field -> type of ``array<struct<...>>``."""
    return dict(part.split(":") for part in kind[len("array<struct<") : -2].split(","))


def _select(column: Column, found: Mapping[str, T.DataType]) -> SparkColumn:
    if column.name not in found:
        return F.lit(None).cast(column.spark_type).alias(column.name)
    kind = found[column.name]
    value = F.col(column.name)
    if column.type == "array<float>" and isinstance(kind, T.BinaryType):
        return value
    if isinstance(kind, T.BinaryType) and column.type == "string":
        return value  # ingest decodes it and sets bad UTF-8 aside
    if column.type.startswith("array<struct<"):  # a cast takes fields by place, not by name
        fields = _struct_fields(column.type).items()
        picked = F.transform(
            value, lambda v: F.struct(*[v[name].try_cast(t).alias(name) for name, t in fields])
        )
        return picked.alias(column.name)
    return value.try_cast(column.spark_type).alias(column.name)


def _spark_uri(place: str) -> str:
    storage = open_storage(place)
    return spark_path(storage, "").rstrip("/")


def _files(place: str) -> list[tuple[Storage, str]]:
    """Data files of a path, sorted; names starting with _ or . are not data."""
    storage = open_storage(place)
    if storage.fs.isfile(storage.root):
        folder, _, name = storage.root.rpartition("/")
        return [(Storage(storage.fs, folder, storage.uri.rpartition("/")[0]), name)]
    if not storage.exists():
        raise FileNotFoundError(2, "No such file or directory", place)
    paths = sorted(str(p).removeprefix(storage.root + "/") for p in storage.fs.find(storage.root))
    data = [p for p in paths if not any(part[0] in "._" for part in p.split("/"))]
    return [(storage, name) for name in data]


def _check_parquet(place: str, files: list[tuple[Storage, str, int]]) -> None:
    """Refuse files cut short before Spark starts, whose message would name none of them."""
    bad = [
        f"{name.rsplit('/', 1)[-1]} ({size} bytes)"
        for storage, name, size in files
        if size < 12 or storage.read_range(name, size - 4, 4) != b"PAR1"
    ]
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise ValueError(
            f"{place}: cut short or not Parquet: {', '.join(bad[:10])}{more}. Replace what is "
            "broken, or say what it is with inputs.<name>.format."
        )


def _footer(storage: Storage, name: str, size: int) -> bytes:
    if size >= 12:
        tail = storage.read_range(name, size - 8, 8)
        if tail[4:] == b"PAR1":
            length = struct.unpack("<I", tail[:4])[0]
            return storage.read_range(name, max(0, size - 8 - length), min(length, size - 8))
    return str(storage.fs.modified(storage.path(name))).encode()

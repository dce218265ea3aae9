"""Files of a root as Spark's frames."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from pipeline.files.storage import Storage
from pipeline.runtime.arrow_frames import read_by_arrow, spark_knows
from pipeline.runtime.manifest import TableManifest
from schemas.contract import Table


def read_frame(
    spark: SparkSession, storage: Storage, table: Table, manifest: TableManifest
) -> DataFrame:
    """A published table as a DataFrame."""
    names = file_names(manifest)
    if names and not spark_knows(spark, spark_path(storage, names[0])):
        return by_arrow(spark, storage, names, table.ddl)
    if not names:
        return spark.createDataFrame([], table.ddl)
    return spark.read.schema(table.ddl).parquet(*(spark_path(storage, name) for name in names))


def file_names(manifest: TableManifest) -> list[str]:
    """Files of a table that have rows, below the root."""
    return [f"{manifest.path}/{f.name}" for f in manifest.files if f.num_rows]


def by_arrow(
    spark: SparkSession, storage: Storage, names: list[str], schema: StructType | str
) -> DataFrame:
    """Files that only the workers can read, as a DataFrame."""
    if not names:
        return spark.createDataFrame([], schema)
    if isinstance(schema, str):
        schema = spark.createDataFrame([], schema).schema
    return read_by_arrow(spark, storage, names, schema)


def spark_path(storage: Storage, name: str) -> str:
    """Path as Spark's Hadoop layer knows it: s3:// is s3a:// there."""
    if storage.is_local:
        return f"file://{storage.path(name)}"
    uri = f"{storage.uri}/{name}"
    return "s3a://" + uri.removeprefix("s3://") if uri.startswith("s3://") else uri

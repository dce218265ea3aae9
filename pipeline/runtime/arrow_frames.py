"""DataFrames over Parquet files that the workers read and write, through the one storage layer.

For roots that Spark's own file layer does not know: the package `pyspark` comes without Hadoop's
clients of object stores. The workers reach them through fsspec as everything else here does, with
the same credentials from the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from pipeline.files.sink import FileSink
from pipeline.files.storage import Storage

READ_ROWS = 8192


def spark_knows(spark: SparkSession, uri: str) -> bool:
    """Whether Spark itself can read and write a uri.

    Args:
        spark: session.
        uri: as ``spark_path`` makes it.
    """
    scheme = uri.partition("://")[0]
    jvm, context = spark._jvm, spark.sparkContext._jsc
    assert jvm is not None
    assert context is not None
    try:
        found = jvm.org.apache.hadoop.fs.FileSystem
        found.getFileSystemClass(scheme, context.hadoopConfiguration())
    except Py4JJavaError:
        return False
    return True


def read_by_arrow(
    spark: SparkSession, storage: Storage, names: Sequence[str], schema: StructType
) -> DataFrame:
    """Files as a DataFrame, one task each; the columns of the schema, in its order.

    Cost: rows cross from Python into the JVM, and every column is read; Spark's own reader reads
    what the plan needs.
    """
    rows = spark.sparkContext.parallelize([(name,) for name in names], len(names))
    wanted = to_arrow_schema(schema, timezone="UTC")

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for name in batch.column(0).to_pylist():
                with storage.open_read(name) as handle:
                    parquet = pq.ParquetFile(handle)
                    for found in parquet.iter_batches(READ_ROWS, columns=wanted.names):
                        rows = pa.Table.from_batches([found]).select(wanted.names).cast(wanted)
                        yield from rows.to_batches()

    return spark.createDataFrame(rows, "name string").mapInArrow(read, schema)


def write_by_arrow(df: DataFrame, storage: Storage, folder: str) -> list[str]:
    """Write a frame, one file a partition that has rows.

    Returns:
        names of the files below the root, sorted.
    """
    write = _partition_writer(storage, folder, to_arrow_schema(df.schema, timezone="UTC"))
    return sorted(row.name for row in df.mapInArrow(write, "name string").collect())


def _partition_writer(
    storage: Storage, folder: str, schema: pa.Schema
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        assert task is not None
        # A second try of the task writes the same rows under the same name.
        name = f"{folder}/part-{task.partitionId():05d}.parquet"
        sink: FileSink | None = None
        try:
            for batch in batches:
                if batch.num_rows == 0:
                    continue
                if sink is None:
                    sink = FileSink(storage, name)
                    writer = pq.ParquetWriter(sink.as_file(), schema, compression="zstd")
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            if sink is None:
                return
            writer.close()
            sink.commit()
        except BaseException:
            if sink is not None:
                sink.abort()
            raise
        yield pa.RecordBatch.from_pylist([{"name": name}])

    return write

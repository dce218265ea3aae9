"""Literal near-duplicate tables and a context that keeps frames in memory."""

import numpy as np
import pyarrow as pa

from pipeline.kernels.vectors import from_matrix
from schemas import ALL


class Context:
    """Cuts the lineage in memory: literal rows are small."""

    def earlier(self, free=()):
        return None

    def materialise(self, df):
        return df.localCheckpoint()

    def count(self, df):
        return df.count()

    def scan(self, df, columns, fn, ddl, among=None):
        if among is not None:
            df = df.join(among.select(columns[0]), on=columns[0], how="left_semi")
        return df.select(*columns).mapInArrow(fn, ddl)


def small(rows):
    """A small table; its class is local because tasks cannot import this file."""

    class Small:
        def __init__(self, rows):
            self._rows = rows

        def read(self):
            return self._rows

    return Small(rows)


def cells(centroids):
    """Centroids as a small table."""
    numbers = np.arange(len(centroids), dtype=np.int32)
    centroid = from_matrix(np.asarray(centroids, np.float32))
    return small(pa.table({"cell_id": numbers, "centroid": centroid}))


def packed(vector):
    return np.asarray(vector, "<f4").tobytes()


def print_row(image_id, sha256, phash=0, is_flat=False, width=10, height=10, **more):
    """Row of `image_fingerprints`; hashes as unsigned integers."""
    return {
        "image_id": image_id,
        "sha256": sha256,
        "phash": phash - 2**64 if phash >= 2**63 else phash,
        "width": width,
        "height": height,
        "num_bytes": 100,
        "format": "png",
        "orientation": 1,
        "is_flat": is_flat,
        "thumbnail": b"t",
    } | more


def frame(spark, name, rows, partitions=1):
    """DataFrame of a contract; missing columns are null."""
    contract = ALL[name]
    values = [tuple(row.get(c) for c in contract.column_names) for row in rows]
    return spark.createDataFrame(values, contract.ddl).repartition(partitions)


def collected(df, *columns):
    """Rows as sorted tuples."""
    return sorted(tuple(row) for row in df.select(*columns).collect())

"""One picture, again and again: the search and the groups stay linear and keep one image.

`make test-faults` takes a million files and 200,000 embeddings; the tests a few per cent. Not the
time is tested, which other processes share, but what it follows from: pairs, rows and memory of
the tasks.
"""

import os
import threading

import numpy as np
import psutil
import pytest
from near_duplicate_rows import cells, frame, packed
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.stages.find_near_duplicates import find_near_duplicates
from pipeline.stages.group_near_duplicates import group_near_duplicates
from schemas import ALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
NUM_FILES = int(os.environ.get("FAULT_BLANKS", "30000"))
NUM_VECTORS = NUM_FILES // 5
WIDTH = 128
"""Floats of an embedding."""
PARAMS = NearDuplicateParams(
    num_probes=3, min_cosine=0.96, max_hamming=4, verify={"enabled": False}
)
"""Verification collapses equal files before anything else; the thresholds' own search does not."""


class Peak:
    """Largest memory of one Python worker while something runs."""

    def __enter__(self):
        self.num_bytes, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "pyspark.daemon" in process.cmdline():
                        self.num_bytes = max(self.num_bytes, process.memory_info().rss)
                except psutil.Error:
                    continue


class Scratch:
    """Cuts lineages on disk, as the runtime does."""

    def __init__(self, spark, folder):
        self._spark, self._folder, self._number = spark, folder, 0

    def earlier(self, free=()):
        return None

    def materialise(self, df):
        self._number += 1
        path = f"file://{self._folder}/{self._number}"
        df.write.parquet(path)
        return self._spark.read.schema(df.schema).parquet(path)

    def count(self, df):
        return df.count()

    def scan(self, df, columns, fn, ddl, places=None, among=None):
        if among is not None:
            df = df.join(among.select(columns[0]), on=columns[0], how="left_semi")
        return df.select(*columns).mapInArrow(fn, ddl)


def prints(spark, count, sha256, is_flat):
    """`image_fingerprints` of equal pictures; ``sha256`` is an expression of the row's number."""
    rows = spark.range(count, numPartitions=4).withColumnRenamed("id", "n")
    values = {
        "image_id": F.format_string("i%07d", "n"),
        "sha256": F.expr(sha256),
        "phash": F.lit(0x0F0F0F0F0F0F0F0F),
        "is_flat": F.lit(is_flat),
        "width": F.lit(10),
        "height": F.lit(10),
        "num_bytes": F.lit(100),
        "format": F.lit("png"),
        "orientation": F.lit(1),
        "thumbnail": F.lit(b"t"),
    }
    contract = ALL["image_fingerprints"]
    columns = [values.get(c.name, F.lit(None)).cast(c.spark_type) for c in contract.columns]
    return rows.select(*(v.alias(n) for v, n in zip(columns, contract.column_names, strict=True)))


def embeddings(spark, count):
    """One vector, of the first images."""
    vector = packed(np.r_[1.0, np.zeros(WIDTH - 1)])
    rows = spark.range(count, numPartitions=4)
    return rows.select(
        F.format_string("i%07d", "id").alias("image_id"), F.lit(vector).alias("embedding")
    )


def kept_images(spark, folder, images, vectors):
    """(pairs by tier, rows of groups, kept images, rows by tier, peak bytes of a worker)."""
    context = Scratch(spark, folder)
    centroids = cells(np.eye(WIDTH, dtype=np.float32)[:8])
    with Peak() as peak:
        found = find_near_duplicates(images, vectors, centroids, PARAMS, context)
        pairs = context.materialise(found["near_duplicate_candidates"])
        labels = frame(spark, "image_labels", [])
        given = (pairs, images, vectors, labels, None, None, None)
        groups = group_near_duplicates(*given, PARAMS, context)["duplicate_groups"]
        groups = context.materialise(groups)
    by_tier = {row["tier"]: row["count"] for row in pairs.groupBy("tier").count().collect()}
    tiers = {row["tier"]: row["count"] for row in groups.groupBy("tier").count().collect()}
    kept = [row[0] for row in groups.select("kept_image_id").distinct().limit(9).collect()]
    return by_tier, kept, tiers, peak.num_bytes


def test_one_of_many_equal_blanks_is_kept(spark, tmp_path):
    images = prints(spark, NUM_FILES, "'same'", is_flat=True)
    vectors = embeddings(spark, NUM_VECTORS)
    pairs, kept, tiers, peak = kept_images(spark, tmp_path, images, vectors)
    assert pairs == {"exact": NUM_FILES - 1, "semantic": NUM_VECTORS - 1}
    assert kept == ["i0000000"]
    assert tiers == {"exact": NUM_FILES - 1, "": 1}
    assert peak < most_bytes(NUM_FILES, NUM_VECTORS), peak


def test_one_of_many_files_of_one_picture_is_kept(spark, tmp_path):
    """Other bytes each, one hash, one vector: what a site's placeholder image looks like."""
    images = prints(spark, NUM_VECTORS, "format_string('%07d', 9999999 - n)", is_flat=False)
    vectors = embeddings(spark, NUM_VECTORS)
    pairs, kept, tiers, peak = kept_images(spark, tmp_path, images, vectors)
    assert pairs == {"perceptual": NUM_VECTORS - 1, "semantic": NUM_VECTORS - 1}
    assert kept == [f"i{NUM_VECTORS - 1:07d}"], "the lowest sha256"
    assert tiers == {"perceptual": NUM_VECTORS - 1, "": 1}
    assert peak < most_bytes(NUM_VECTORS, NUM_VECTORS), peak


def most_bytes(num_files, num_vectors):
    """Of one worker: its libraries (of all tests before it), a graph's edges by name, and some
    copies of one cell."""
    return (900 << 20) + 300 * num_files + 6 * 4 * WIDTH * num_vectors

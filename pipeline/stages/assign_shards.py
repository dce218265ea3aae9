"""Assign shards: samples, unique_images, images -> shard_assignments, shard_plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.config.dataset import AssignShardsParams
from pipeline.stages.stage import LedgerRule, RelationalStage, StageContext, StoredColumn
from schemas.dataset import SAMPLES, SHARD_ASSIGNMENTS, SHARD_PLAN
from schemas.images import UNIQUE_IMAGES
from schemas.ingested import IMAGES
from schemas.sample import KEY_DIGITS

DEAL_STREAM = "shard_deal"
ORDER_STREAM = "shard_order"
_IMAGE_COLUMNS = ("image_id", "uri", "source", "licence")
_STORED = StoredColumn("bytes", "num_bytes")
_PLACES_DDL = (
    "image_id string, uri string, source string, licence string, part string, offset bigint"
)
_RANGE_BITS = 12
"""Ranges of the deal's hash: 4,096, of 325,000 images each at 1.33 billion. Any number gives the
same result; it only bounds the rows of one window."""


def assign_shards(
    samples: DataFrame,
    unique_images: DataFrame,
    images: DataFrame,
    params: AssignShardsParams,
    ctx: StageContext,
) -> dict[str, DataFrame]:
    """Deal samples to shards like cards, then order each shard by a hash.

    Images stand in the order of a seeded hash, the copies of one behind each other; the sample at
    place p goes to shard p mod S. So sizes differ by one at most, and the copies of an image are in
    different shards as long as it has no more copies than there are shards. Places are exclusive
    running sums: over ranges of the hash first (4,096 numbers), then inside a range, so that no
    task sees more than a range.

    Each sample takes along where its image is: its uri, or its place in the files of `images`. So
    the stage that writes shards joins nothing.

    Cost at 1.329 billion images: `samples` is scanned for the range sums (copies only), then four
    shuffles of rows of some 250 bytes: the join of the inputs, the ranges, the order inside shards,
    the files. Compressed they are 540 bytes an image in all (measured at 10 million), 715 GB.
    Image bytes are not touched. Per task memory: Spark's sort, spilling.
    Source: SPEC W2.
    """
    places = ctx.scan(images, _IMAGE_COLUMNS, _as_they_are, _PLACES_DDL, _STORED)
    totals = _range_totals(samples, params)
    plan = totals.agg(F.coalesce(F.sum("copies"), F.lit(0)).alias("num_samples")).select(
        F.lit(params.seed).cast("bigint").alias("seed"),
        F.lit(params.samples_per_shard).alias("samples_per_shard"),
        _num_shards(F.col("num_samples"), params).cast("int").alias("num_shards"),
        "num_samples",
    )
    hashed = _with_hash(samples, params)
    known = hashed.join(unique_images, on="image_id", how="left")
    known = known.join(places, on="image_id", how="left")
    copies = _places(known, _range_starts(totals, params))
    dealt = copies.withColumn("shard_id", F.pmod("place", "num_shards").cast("int"))
    order = Window.partitionBy("shard_id").orderBy("order_hash", "key")
    position = F.row_number().over(order.rowsBetween(Window.unboundedPreceding, 0)) - 1
    return {
        "shard_assignments": _with_key(dealt, params)
        .withColumn("position", position)
        .select(*SHARD_ASSIGNMENTS.column_names),
        "shard_plan": plan,
    }


def _as_they_are(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


def _hash(seed: int, stream: str, name: str) -> Column:
    """Equal to ``kernels.hashing.hash64``, as a signed number."""
    return F.xxhash64(F.lit(seed).cast("bigint"), F.lit(stream), F.col(name))


def _with_hash(samples: DataFrame, params: AssignShardsParams) -> DataFrame:
    deal = samples.withColumn("deal_hash", _hash(params.seed, DEAL_STREAM, "image_id"))
    # An arithmetic shift keeps the order of signed numbers.
    return deal.withColumn("range_id", F.shiftright("deal_hash", 64 - _RANGE_BITS))


def _range_totals(samples: DataFrame, params: AssignShardsParams) -> DataFrame:
    ranges = _with_hash(samples.select("image_id", "copies"), params)
    return ranges.groupBy("range_id").agg(F.sum("copies").alias("copies"))


def _num_shards(num_samples: Column, params: AssignShardsParams) -> Column:
    return F.ceil(num_samples / F.lit(params.samples_per_shard))


def _range_starts(totals: DataFrame, params: AssignShardsParams) -> DataFrame:
    """First place of each range and the number of shards: a few thousand rows."""
    before = Window.orderBy("range_id").rowsBetween(Window.unboundedPreceding, -1)
    whole = Window.partitionBy(F.lit(1)).rowsBetween(
        Window.unboundedPreceding, Window.unboundedFollowing
    )
    return totals.select(
        "range_id",
        F.coalesce(F.sum("copies").over(before), F.lit(0)).alias("start"),
        _num_shards(F.sum("copies").over(whole), params).alias("num_shards"),
    )


def _places(images: DataFrame, starts: DataFrame) -> DataFrame:
    """One row a copy, with its place in the deal."""
    before = (
        Window.partitionBy("range_id")
        .orderBy("deal_hash", "image_id")
        .rowsBetween(Window.unboundedPreceding, -1)
    )
    inside = F.coalesce(F.sum("copies").over(before), F.lit(0))
    placed = images.withColumn("inside", inside).join(
        F.broadcast(starts), on="range_id", how="inner"
    )
    copies = placed.withColumn(
        "copy_index", F.explode(F.sequence(F.lit(0), F.col("copies") - F.lit(1)))
    )
    return copies.withColumn("place", F.col("start") + F.col("inside") + F.col("copy_index"))


def _with_key(copies: DataFrame, params: AssignShardsParams) -> DataFrame:
    """Adds `key`, equal to ``kernels.samples.sample_key``, and the hash that orders by it."""
    digits = F.substring(F.sha2(F.col("image_id").cast("binary"), 256), 1, KEY_DIGITS)
    key = F.format_string("%s-%03d", digits, F.col("copy_index"))
    return copies.withColumn("key", key).withColumn(
        "order_hash", _hash(params.seed, ORDER_STREAM, "key")
    )


STAGE = RelationalStage(
    name="assign_shards",
    version=2,
    fn=assign_shards,
    params=AssignShardsParams,
    inputs=(SAMPLES, UNIQUE_IMAGES, IMAGES),
    outputs=(SHARD_ASSIGNMENTS, SHARD_PLAN),
    ledger=(LedgerRule("samples", ("samples.copies",), ("shard_assignments",)),),
)

"""The images that remain, those that do not with their reason, and the certificate (SPEC N5, N6).

Cost at 1.329 billion images: one join of the fingerprints' narrow columns with groups and overlaps
by image_id, about 200 GB shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import DropNearDuplicatesParams
from pipeline.stages.blocked import with_blocked
from pipeline.stages.stage import LedgerRule, RelationalStage, StageContext
from schemas.images import (
    DROPPED_IMAGES,
    DUPLICATE_GROUPS,
    IMAGE_FINGERPRINTS,
    TIERS,
    UNIQUE_IMAGES,
    VALIDATION_OVERLAPS,
)
from schemas.ingested import BLOCKED_IMAGES

NARROW = ("image_id", "sha256", "format", "num_bytes")


def drop_near_duplicates(
    image_fingerprints: DataFrame,
    duplicate_groups: DataFrame,
    validation_overlaps: DataFrame | None,
    blocked_images: DataFrame | None,
    params: DropNearDuplicatesParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Give every image its first reason: blocked, copy of a blocked one, validation, duplicate."""
    images = with_blocked(image_fingerprints.select(*NARROW), image_fingerprints, blocked_images)
    groups = duplicate_groups.select(
        "image_id", "kept_image_id", "tier", "distance", F.col("is_blocked").alias("of_blocked")
    )
    images = images.join(groups, on="image_id", how="left")
    images = images.join(_strongest(validation_overlaps, image_fingerprints), "image_id", "left")
    judged = ctx.materialise(images.withColumn("reason", _reason(params)))
    dropped = judged.where(F.col("reason").isNotNull())
    by_validation = F.col("reason").startswith("validation_")
    by_duplicate = F.col("reason").startswith("duplicate_")
    return {
        "unique_images": judged.where(F.col("reason").isNull()).select(*NARROW),
        "dropped_images": dropped.select(
            "image_id",
            "reason",
            F.when(by_validation, F.col("validation_id"))
            .when(by_duplicate, F.col("kept_image_id"))
            .alias("other_id"),
            F.when(by_validation, F.col("validation_distance"))
            .when(by_duplicate, F.col("distance"))
            .alias("distance"),
        ),
    }


def _reason(params: DropNearDuplicatesParams) -> Column:
    near_blocked = F.coalesce("of_blocked", F.lit(False)) & F.lit(params.drop_blocked_duplicates)
    is_duplicate = F.col("kept_image_id") != F.col("image_id")  # null is not true
    return (
        F.when(F.col("is_named"), "blocked")
        .when(F.col("has_blocked_bytes") | near_blocked, "blocked_duplicate")
        .when(
            F.col("validation_id").isNotNull(),
            F.concat(F.lit("validation_"), F.col("validation_tier")),
        )
        .when(is_duplicate, F.concat(F.lit("duplicate_"), F.col("tier")))
    )


def _strongest(validation_overlaps: DataFrame | None, like: DataFrame) -> DataFrame:
    """The strongest tier in which an image overlaps with a validation image."""
    if validation_overlaps is None:
        nothing = F.lit(None)
        return like.limit(0).select(
            "image_id",
            nothing.cast("string").alias("validation_id"),
            nothing.cast("string").alias("validation_tier"),
            nothing.cast("float").alias("validation_distance"),
        )
    order = F.array_position(F.array(*map(F.lit, TIERS)), F.col("tier"))
    named = F.struct("validation_id", F.col("tier"), "distance")
    best = validation_overlaps.groupBy("image_id").agg(F.min_by(named, order).alias("best"))
    return best.select(
        "image_id",
        F.col("best.validation_id").alias("validation_id"),
        F.col("best.tier").alias("validation_tier"),
        F.col("best.distance").alias("validation_distance"),
    )


STAGE = RelationalStage(
    name="drop_near_duplicates",
    version=1,
    fn=drop_near_duplicates,
    params=DropNearDuplicatesParams,
    inputs=(IMAGE_FINGERPRINTS, DUPLICATE_GROUPS, VALIDATION_OVERLAPS, BLOCKED_IMAGES),
    optional=(VALIDATION_OVERLAPS, BLOCKED_IMAGES),
    outputs=(UNIQUE_IMAGES, DROPPED_IMAGES),
    ledger=(
        LedgerRule(
            "images", ("image_fingerprints",), ("unique_images",), dropped=("dropped_images",)
        ),
    ),
)

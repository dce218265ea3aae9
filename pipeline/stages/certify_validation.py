"""The certificate that no remaining image is near a validation image (SPEC N6).

Cost at 1.329 billion images: one aggregate of the overlaps and of one row a batch; seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.stages.stage import RelationalStage, StageContext
from schemas.images import (
    IMAGE_FINGERPRINTS,
    UNIQUE_IMAGES,
    VALIDATION_CERTIFICATE,
    VALIDATION_FINGERPRINTS,
    VALIDATION_NEAREST,
    VALIDATION_OVERLAPS,
)


def certify_validation(
    image_fingerprints: DataFrame,
    validation_fingerprints: DataFrame,
    validation_overlaps: DataFrame,
    validation_nearest: DataFrame,
    unique_images: DataFrame,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """One row a tier; fails when an overlapping image is among those that remain.

    Raises:
        ValueError: a leak.
    """
    leaks = unique_images.join(validation_overlaps, on="image_id", how="left_semi")
    found = ctx.count(leaks)
    if found:
        raise ValueError(
            f"unique_images: {found} images overlap with a validation image, expected 0."
        )
    num_images = image_fingerprints.agg(F.count("*").alias("num_images"))
    num_others = validation_fingerprints.agg(F.count("*").alias("num_validation_images"))
    removed = validation_overlaps.groupBy("tier").agg(F.count("*").alias("num_removed"))
    compared = validation_nearest.groupBy("tier").agg(
        F.sum(F.col("num_pairs").cast("double")).alias("num_pairs"),
        F.min("distance").alias("nearest_remaining"),
    )
    limits = [
        F.struct(F.lit(tier).alias("tier"), F.lit(float(limit)).cast("float").alias("limit"))
        for tier, limit, is_on in (
            ("exact", 0.0, params.exact),
            ("perceptual", params.max_hamming, params.perceptual),
            ("semantic", 1.0 - params.min_cosine, params.semantic),
        )
        if is_on
    ]
    tiers = F.array(*limits) if limits else F.array().cast("array<struct<tier:string,limit:float>>")
    rows = num_images.crossJoin(num_others).select("*", F.inline(tiers))
    rows = rows.join(removed, on="tier", how="left").join(compared, on="tier", how="left")
    return {
        "validation_certificate": rows.select(
            "tier",
            "num_images",
            "num_validation_images",
            F.coalesce("num_pairs", F.lit(0.0)).alias("num_pairs_checked"),
            F.coalesce("num_removed", F.lit(0).cast("bigint")).alias("num_removed"),
            "limit",
            "nearest_remaining",
        )
    }


STAGE = RelationalStage(
    name="certify_validation",
    version=1,
    fn=certify_validation,
    params=NearDuplicateParams,
    section="near_duplicates",
    inputs=(
        IMAGE_FINGERPRINTS,
        VALIDATION_FINGERPRINTS,
        VALIDATION_OVERLAPS,
        VALIDATION_NEAREST,
        UNIQUE_IMAGES,
    ),
    outputs=(VALIDATION_CERTIFICATE,),
)

"""Which images an opt-out names."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def with_blocked(images: DataFrame, blocked_images: DataFrame | None) -> DataFrame:
    """Images with a column ``blocked``: named by identifier or by the digest of their bytes.

    Cost: two joins with the block list, broadcast while it is small.

    Args:
        images: image_id and sha256 among its columns.
        blocked_images: the table, None for no list.
    """
    if blocked_images is None:
        return images.withColumn("blocked", F.lit(False))
    named = images
    for kind in ("image_id", "sha256"):
        entries = blocked_images.where(F.col("kind") == kind)
        marked = entries.select(F.col("value").alias(kind), F.lit(True).alias(f"by_{kind}"))
        named = named.join(marked, on=kind, how="left")
    blocked = F.coalesce("by_image_id", "by_sha256", F.lit(False))
    return named.withColumn("blocked", blocked).drop("by_image_id", "by_sha256")

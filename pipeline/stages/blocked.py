"""Which images an opt-out names, and which have the same bytes as one of those."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def with_blocked(
    images: DataFrame, image_fingerprints: DataFrame, blocked_images: DataFrame | None
) -> DataFrame:
    """Images with two columns more.

    ``is_named``: the list has the identifier or the digest of the bytes. ``has_blocked_bytes``: so,
    or another image of the same bytes is named by its identifier.

    Cost: three joins with the block list, broadcast while it is small.

    Args:
        images: image_id and sha256 among its columns.
        image_fingerprints: image_id and sha256 of all images.
        blocked_images: the table, None for no list.
    """
    if blocked_images is None:
        return images.withColumns({"is_named": F.lit(False), "has_blocked_bytes": F.lit(False)})
    ids = blocked_images.where(F.col("kind") == "image_id")
    ids = ids.select(F.col("value").alias("image_id"), F.lit(True).alias("by_id"))
    digests = blocked_images.where(F.col("kind") == "sha256")
    digests = digests.select(F.col("value").alias("sha256"), F.lit(True).alias("by_digest"))
    twins = image_fingerprints.select("image_id", "sha256").join(ids, "image_id", "left_semi")
    contents = digests.unionByName(twins.select("sha256", F.lit(False).alias("by_digest")))
    contents = contents.groupBy("sha256").agg(F.max("by_digest").alias("by_digest"))
    marked = images.join(ids, on="image_id", how="left").join(contents, on="sha256", how="left")
    named = F.coalesce("by_id", "by_digest", F.lit(False))
    marked = marked.withColumns(
        {"is_named": named, "has_blocked_bytes": F.col("by_digest").isNotNull()}
    )
    return marked.drop("by_id", "by_digest")

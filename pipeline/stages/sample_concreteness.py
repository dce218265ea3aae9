"""Positive images of every term and one pool of negatives (SPEC C1, C3).

Cost at 1.329 billion images: two narrow scans of the selected annotations (counts, then draws) and
one of all annotations (the pool's). A term's rows are thinned by its known count before the
shuffle, so 218,879 terms give at most some 290 million rows whatever the corpus size (12 GB),
joined with the embeddings of sampled images only (the table's identifiers are shuffled once, 1.4 TB
with vectors). The pool is a top-k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.config.labels import SampleConcretenessParams
from pipeline.stages.stage import RelationalStage, StageContext
from schemas.ingested import ANNOTATIONS, IMAGE_EMBEDDINGS
from schemas.labels import CONCRETENESS_POOL, CONCRETENESS_POSITIVES, SELECTED_ANNOTATIONS

POSITIVES, POOL = "concreteness.sample", "concreteness.pool"
"""Streams of the draws."""


def sample_concreteness(
    selected_annotations: DataFrame,
    annotations: DataFrame,
    image_embeddings: DataFrame,
    params: SampleConcretenessParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Bottom-k by hash of (seed, term, image) for each term; bottom-k by hash for the pool."""
    chosen = _sampled(selected_annotations, params)
    drawn = image_embeddings.select("image_id", _draw(params.seed, POOL, "image_id").alias("draw"))
    lowest = drawn.orderBy("draw", "image_id").limit(params.pool_size).select("image_id")
    pool = image_embeddings.join(F.broadcast(lowest), on="image_id", how="left_semi")
    pool = ctx.materialise(pool)
    terms = F.transform("annotations", lambda a: a["term_id"])
    # A left join shuffles its right side; the pool's annotations are few once picked out.
    of_pool = annotations.join(F.broadcast(pool.select("image_id")), "image_id", "left_semi")
    given = of_pool.select("image_id", terms.alias("term_ids"))
    pool = pool.join(given, on="image_id", how="left")
    nothing = F.array().cast("array<int>")
    return {
        "concreteness_positives": chosen.join(image_embeddings, on="image_id", how="inner"),
        "concreteness_pool": pool.withColumn("term_ids", F.coalesce("term_ids", nothing)),
    }


def _sampled(selected_annotations: DataFrame, params: SampleConcretenessParams) -> DataFrame:
    """At most max_positives rows (term_id, image_id) a term."""
    rows = selected_annotations.select("image_id", F.explode("annotations").alias("annotation"))
    # As float: the double 0.8 is less than the float of a score of 0.8.
    least = F.lit(params.min_confidence).cast("float")
    confident = rows.where(F.col("annotation.score") > least).select(
        F.col("annotation.term_id").alias("term_id"), "image_id"
    )
    counts = confident.groupBy("term_id").agg(F.count("*").alias("num_positives"))
    k = params.max_positives
    # Enough that the k lowest are among them: 1.3 k, or six standard deviations of a small k.
    wanted = max(params.oversampling * k, k + 6 * math.sqrt(k) + 10)
    draw = _draw(params.seed, POSITIVES, "term_id", "image_id")
    thinned = (
        confident.join(F.broadcast(counts), on="term_id", how="inner")
        .withColumn("draw", draw)
        .where(F.col("draw") < F.lit(wanted * 2.0**53) / F.col("num_positives"))
    )
    order = Window.partitionBy("term_id").orderBy("draw", "image_id")
    order = order.rowsBetween(Window.unboundedPreceding, 0)
    ranked = thinned.withColumn("rank", F.row_number().over(order))
    return ranked.where(F.col("rank") <= k).select("term_id", "image_id")


def _draw(seed: int, stream: str, *columns: str) -> Column:
    """The top 53 bits of the seeded hash: uniform in [0, 2**53)."""
    hashed = F.xxhash64(F.lit(seed).cast("bigint"), F.lit(stream), *map(F.col, columns))
    return F.shiftrightunsigned(hashed, 11)


STAGE = RelationalStage(
    name="sample_concreteness",
    version=2,
    fn=sample_concreteness,
    params=SampleConcretenessParams,
    inputs=(SELECTED_ANNOTATIONS, ANNOTATIONS, IMAGE_EMBEDDINGS),
    outputs=(CONCRETENESS_POSITIVES, CONCRETENESS_POOL),
)

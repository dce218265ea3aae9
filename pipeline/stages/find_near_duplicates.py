"""Candidates of near-duplicate pairs in three tiers (paper section 3.3; SPEC N1-N3, N7).

With verification (``near_duplicates.verify``) these are candidates within wider limits, capped by
image; without it they are the pairs within the thresholds.

Cost at 1.329 billion images: equal digests one shuffle (60 GB). Perceptual radius 4 is 35 tables:
8 bytes a hash and table shuffled, packed (370 GB); over all turns eight hashes an image (3 TB;
radius 6 has 210 tables, so stay at 4 there), eight names of some 30 bytes (320 GB), and one narrow
read of the thumbnails (5.4 TB). Semantic 3 probes of 1 KB (4 TB) shuffled
and 17,000 images a cell compared, some 10^16 operations. The cap shuffles every candidate twice, at
most 2 x 10^10 rows of 60 bytes (1 TB). Each tier can be switched off.

Within the thresholds, a run that finds an earlier one on its root takes over the pairs of images
that are as they were and searches new ones alone, to the same bytes: ``new_hash_pairs`` and
``new_cell_pairs`` state that cost. Candidates of verification are searched anew: which are among an
image's best depends on all others, and the table of the earlier run holds only the best.
``verify_near_duplicates``, where the time goes, takes over what it judged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.stages.hash_pairs import perceptual_pairs
from pipeline.stages.near_pairs import semantic_pairs, star_pairs
from pipeline.stages.new_cell_pairs import known_semantic_pairs
from pipeline.stages.new_hash_pairs import known_hash_pairs
from pipeline.stages.pair_candidates import candidate_pairs
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.images import (
    CANDIDATE_OVERFLOWS,
    EMBEDDING_CELLS,
    IMAGE_FINGERPRINTS,
    NEAR_DUPLICATE_CANDIDATES,
)
from schemas.ingested import IMAGE_EMBEDDINGS

logger = logging.getLogger(__name__)


def find_near_duplicates(
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    embedding_cells: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Union of the tiers that are switched on, each pair once a tier with its least distance."""
    exact = image_fingerprints.select("image_id", "sha256")
    pairs = star_pairs(exact if params.exact else exact.limit(0), "sha256", "exact")
    if params.verify.enabled:
        given = (image_fingerprints, image_embeddings, embedding_cells)
        reason = "an image's best candidates depend on all others"
        logger.info("candidates_from_scratch", extra={"fields": {"reason": reason}})
        more, overflows = candidate_pairs(*given, params, ctx)
    else:
        more = _within_thresholds(
            image_fingerprints, image_embeddings, embedding_cells, params, ctx
        )
        nothing = exact.limit(0).select("image_id")
        overflows = nothing.withColumn("num_over_cap", F.lit(1).cast("bigint"))
    return {
        "near_duplicate_candidates": pairs.unionByName(more),
        "candidate_overflows": overflows,
    }


def _within_thresholds(
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    embedding_cells: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> DataFrame:
    """Pairs within the radius or above the cosine, each once a tier."""
    is_large = ctx.count(image_fingerprints) >= params.incremental_min_images
    is_asked = params.incremental == "auto" and is_large
    earlier = ctx.earlier(free=("cells_version",)) if is_asked else None
    pairs = star_pairs(image_fingerprints.limit(0), "sha256", "exact")
    if params.perceptual:
        hashes = None
        if earlier is not None and params.max_hamming > 0:
            hashes = known_hash_pairs(image_fingerprints, earlier, params, ctx)
        pairs = pairs.unionByName(perceptual_pairs(image_fingerprints, params, ctx, hashes))
    if params.semantic:
        found = None
        if earlier is not None:
            found = known_semantic_pairs(image_embeddings, embedding_cells, earlier, params, ctx)
        if found is None:
            found = semantic_pairs(
                image_embeddings,
                embedding_cells,
                params,
                ctx,
                params.min_cosine,
                among=image_fingerprints,
            )
        pairs = pairs.unionByName(found)
    keys = ("image_id_a", "image_id_b", "tier")
    return pairs.groupBy(*keys).agg(F.min("distance").alias("distance"))


STAGE = RelationalStage(
    name="find_near_duplicates",
    version=3,
    fn=find_near_duplicates,
    params=NearDuplicateParams,
    section="near_duplicates",
    inputs=(IMAGE_FINGERPRINTS, IMAGE_EMBEDDINGS),
    broadcast=(EMBEDDING_CELLS,),
    outputs=(NEAR_DUPLICATE_CANDIDATES, CANDIDATE_OVERFLOWS),
)

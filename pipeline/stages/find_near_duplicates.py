"""Pairs of near-duplicate images in three tiers (paper section 3.3; SPEC N1-N3).

Cost at 1.329 billion images: equal digests and hashes one shuffle each (60 GB); perceptual radius 4
some 20 tables, 27 billion rows of 16 bytes shuffled (430 GB); semantic 3 probes of 1 KB (4 TB)
shuffled and 17,000 images a cell compared, some 10^16 operations. Each tier can be switched off.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.stages.hash_pairs import perceptual_pairs
from pipeline.stages.near_pairs import semantic_pairs, star_pairs
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.images import EMBEDDING_CELLS, IMAGE_FINGERPRINTS, NEAR_DUPLICATE_PAIRS
from schemas.ingested import IMAGE_EMBEDDINGS


def find_near_duplicates(
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    embedding_cells: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Union of the tiers that are switched on, each pair once a tier with its least distance."""
    found = []
    if params.exact:
        found.append(star_pairs(image_fingerprints.select("image_id", "sha256"), "sha256", "exact"))
    if params.perceptual:
        found.append(perceptual_pairs(image_fingerprints, params, ctx))
    if params.semantic:
        near = semantic_pairs(image_embeddings, embedding_cells, params, ctx, image_fingerprints)
        found.append(near)
    pairs = found[0] if found else star_pairs(image_fingerprints.limit(0), "sha256", "exact")
    for more in found[1:]:
        pairs = pairs.unionByName(more)
    keys = ("image_id_a", "image_id_b", "tier")
    return {"near_duplicate_pairs": pairs.groupBy(*keys).agg(F.min("distance").alias("distance"))}


STAGE = RelationalStage(
    name="find_near_duplicates",
    version=1,
    fn=find_near_duplicates,
    params=NearDuplicateParams,
    section="near_duplicates",
    inputs=(IMAGE_FINGERPRINTS, IMAGE_EMBEDDINGS),
    broadcast=(EMBEDDING_CELLS,),
    outputs=(NEAR_DUPLICATE_PAIRS,),
)

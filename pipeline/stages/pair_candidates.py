"""Candidates of verification: wide limits, all turns, capped by image (SPEC N2, N3, N7).

Copies of one file are one picture here. All functions return
``image_id_a, image_id_b, tier, distance`` unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.pair_candidates import cap_candidates
from pipeline.kernels.row_checks import one_array
from pipeline.stages.arrow import whole_keys
from pipeline.stages.near_pairs import ordered_pair, semantic_pairs, star_pairs
from pipeline.stages.stage import SmallTable, StageContext
from pipeline.stages.turned_pairs import turned_pairs
from schemas.images import TIERS

PAIR = ("image_id_a", "image_id_b")
_CAPPED = "image_id string, other string, tier string, distance float, is_kept boolean"


def candidate_pairs(
    fingerprints: DataFrame,
    embeddings: DataFrame,
    cells: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> tuple[DataFrame, DataFrame]:
    """Candidates of the tiers that are on, capped by image; exact ones not among them.

    Returns:
        candidates, each once a tier; images with more candidates than the cap.
    """
    pictures = None
    if params.exact:
        one = fingerprints.groupBy("sha256").agg(F.min("image_id").alias("image_id"))
        pictures = ctx.materialise(one.select("image_id"))
    found = star_pairs(fingerprints.limit(0), "sha256", "exact")
    if params.perceptual:
        found = found.unionByName(turned_pairs(fingerprints, pictures, params, ctx))
    if params.semantic:
        limits = params.verify
        among = fingerprints if pictures is None else pictures
        near = semantic_pairs(
            embeddings, cells, params, ctx, limits.min_cosine, limits.num_nearest, among
        )
        found = found.unionByName(near)
    once = found.groupBy(*PAIR, "tier").agg(F.min("distance").alias("distance"))
    return cap(once, params.verify.max_candidates, ctx)


def cap(pairs: DataFrame, most: int, ctx: StageContext) -> tuple[DataFrame, DataFrame]:
    """Keep the pairs that are among the best of either image; tiers take turns.

    So at most ``most`` pairs an image remain on average, and an image that is near to very many
    (a star's centre) keeps them all. Cost: every pair twice through one shuffle; a task holds the
    candidates of an image.

    Args:
        pairs: candidates, each once a tier.
        most: pairs that an image has of its own.
        ctx: of the stage.

    Returns:
        pairs that remain; ``image_id, num_over_cap``.
    """
    there, back = (
        F.struct(F.col(a).alias("image_id"), F.col(b).alias("other"), "tier", "distance")
        for a, b in (PAIR, PAIR[::-1])
    )
    directed = pairs.select(F.inline(F.array(there, back))).repartition(F.col("image_id"))

    def mark(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_keys(batches, "image_id"):
            yield from _marked(group, most).to_batches()

    ordered = directed.sortWithinPartitions("image_id", "other", "tier")
    marked = ctx.materialise(ordered.mapInArrow(mark, _CAPPED))
    both = ordered_pair(marked.withColumnsRenamed({"image_id": "one", "other": "two"}),
                        F.col("tier"), "is_kept")  # fmt: skip
    kept = both.groupBy(*PAIR, "tier").agg(
        F.min("distance").alias("distance"), F.max("is_kept").alias("is_kept")
    )
    over = marked.where(~F.col("is_kept")).groupBy("image_id")
    counted = over.agg(F.count_distinct("other").alias("num_over_cap"))
    return kept.where("is_kept").drop("is_kept"), counted


def _marked(rows: pa.Table, most: int) -> pa.Table:
    """Rows of whole images with ``is_kept``: whether the other is among the image's own best."""
    images = one_array(rows["image_id"]).dictionary_encode()
    query = images.indices.to_numpy().astype(np.int64)
    others = one_array(rows["other"]).dictionary_encode()
    rank = np.empty(len(others.dictionary), np.int64)
    by_name = pc.sort_indices(others.dictionary).to_numpy().astype(np.int64)
    rank[by_name] = np.arange(len(rank))
    base = rank[others.indices.to_numpy()]
    # Bits of floats >= 0 have the order of the floats.
    order = rows["distance"].to_numpy().astype(np.float32).view(np.int32).astype(np.int64)
    tier = one_array(rows["tier"])
    masks = [pc.equal(tier, name).to_numpy(zero_copy_only=False) for name in TIERS]
    tiers = [(query[mask], base[mask], order[mask]) for mask in masks]
    found = cap_candidates(tiers, len(images.dictionary), most)
    kept = np.isin(query * len(rank) + base, found.query * len(rank) + found.base)
    return rows.append_column("is_kept", pa.array(kept))

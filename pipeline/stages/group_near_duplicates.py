"""Groups of near-duplicates and the image that is kept of each (SPEC N4, N5).

Cost at 1.329 billion images, some 30% of which have near-duplicates: components over 10^9 edges in
about ten rounds of 100 GB shuffled; one join of the members with fingerprints and embeddings
(0.5 TB). A component is peeled by one task, its equal copies as one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.groups import NONE, TIER_NAMES, Verifier, choose_kept, keep_order, peel_groups
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import l2_normalise, to_matrix
from pipeline.stages.arrow import whole_keys
from pipeline.stages.blocked import with_blocked
from pipeline.stages.graph import components
from pipeline.stages.stage import RelationalStage, StageContext
from schemas.images import (
    DUPLICATE_GROUPS,
    IMAGE_FINGERPRINTS,
    NEAR_DUPLICATE_PAIRS,
    VALIDATION_OVERLAPS,
)
from schemas.ingested import BLOCKED_IMAGES, IMAGE_EMBEDDINGS
from schemas.labels import IMAGE_LABELS

_PEELED = "image_id string, kept_image_id string, tier string, distance float"


def group_near_duplicates(
    near_duplicate_pairs: DataFrame,
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    image_labels: DataFrame,
    blocked_images: DataFrame | None,
    validation_overlaps: DataFrame | None,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Components of the pairs, then in each the best image and those that verify against it.

    Images that a validation set removes take no part: what they would stand for must not go with
    them.
    """
    edges = near_duplicate_pairs.select(
        F.col("image_id_a").alias("one"), F.col("image_id_b").alias("two")
    )
    if validation_overlaps is not None:
        removed = validation_overlaps.select("image_id").distinct()
        for side in ("one", "two"):
            gone = removed.select(F.col("image_id").alias(side))
            edges = edges.join(gone, on=side, how="left_anti")
    found = components(edges, ctx, params.task_rows, params.max_rounds)
    nodes = found.select(F.col("node").alias("image_id"), "component")
    signals = image_fingerprints.select(
        "image_id",
        "sha256",
        "phash",
        "is_flat",
        (F.col("width").cast("bigint") * F.col("height")).alias("area"),
    )
    labels = image_labels.select("image_id", F.size("cluster_ids").alias("num_labels"))
    members = nodes.join(signals, on="image_id", how="inner").join(labels, "image_id", how="left")
    members = members.withColumn("num_labels", F.coalesce("num_labels", F.lit(0)))
    members = ctx.materialise(with_blocked(members, blocked_images))
    return {"duplicate_groups": _groups(members, image_embeddings, params, ctx)}


def _groups(
    members: DataFrame, image_embeddings: DataFrame, params: NearDuplicateParams, ctx: StageContext
) -> DataFrame:
    """Peel one row a component and content, then give equal copies their kept image."""
    rank = F.struct(
        F.col("blocked").cast("int").alias("blocked"),
        (-F.col("num_labels")).alias("labels"),
        F.col("image_id").alias("image_id"),
    )
    # Of equal bytes the area is equal too: labels and identifier decide.
    best = members.groupBy("component", "sha256").agg(F.min_by("image_id", rank).alias("image_id"))
    rows = best.select("image_id").join(members, on="image_id", how="inner")
    rows = rows.join(image_embeddings, on="image_id", how="left")

    def peel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_keys(batches, "component"):
            yield _peel(group, params)

    ordered = rows.repartition(F.col("component")).sortWithinPartitions("component", "image_id")
    peeled = ctx.materialise(ordered.mapInArrow(peel, _PEELED))
    speaker = best.select("component", "sha256", F.col("image_id").alias("speaker"))
    copies = members.join(speaker, on=["component", "sha256"], how="inner")
    outcome = peeled.withColumnRenamed("image_id", "speaker")
    named = copies.join(outcome, on="speaker", how="inner")
    is_copy_of_kept = (F.col("kept_image_id") == F.col("speaker")) & (
        F.col("image_id") != F.col("speaker")
    )
    named = named.withColumn("tier", F.when(is_copy_of_kept, "exact").otherwise(F.col("tier")))
    blocked = named.groupBy("kept_image_id").agg(F.max("blocked").alias("is_blocked"))
    joined = named.join(blocked, on="kept_image_id", how="inner")
    return joined.select("image_id", "kept_image_id", "tier", "distance", "is_blocked")


def _peel(rows: pa.Table, params: NearDuplicateParams) -> pa.RecordBatch:
    """Kept image of each row of one or more whole components."""
    ids = one_array(rows["image_id"])
    digests = one_array(rows["sha256"])
    group = one_array(rows["component"]).dictionary_encode().indices.to_numpy().astype(np.int64)
    order = keep_order(
        rows["blocked"].to_numpy(),
        rows["area"].to_numpy(),
        rows["num_labels"].to_numpy().astype(np.int64),
        digests,
        ids,
    )
    if not params.verify_against_kept:
        kept = choose_kept(group, order)
        tier, distance = _tiers(rows, digests, params).match(np.arange(len(ids)), kept)
        is_kept = kept == np.arange(len(ids))
        tier[is_kept], distance[is_kept] = NONE, 0.0
        distance = np.nan_to_num(distance)
    else:
        peeled = peel_groups(group, order, _tiers(rows, digests, params))
        kept, tier, distance = peeled.kept, peeled.tier, peeled.distance
    names = pa.array(["", *TIER_NAMES], pa.string()).take(pa.array(tier.astype(np.int64) + 1))
    columns = [ids, ids.take(pa.array(kept)), names, pa.array(distance, pa.float32())]
    return pa.RecordBatch.from_arrays(columns, ["image_id", "kept_image_id", "tier", "distance"])


def _tiers(rows: pa.Table, digests: pa.Array, params: NearDuplicateParams) -> Verifier:
    codes = digests.dictionary_encode().indices.to_numpy().astype(np.int64)
    vectors = None
    if params.semantic:
        column = one_array(rows["embedding"])
        present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        known = l2_normalise(to_matrix(column.take(pa.array(present))))
        vectors = np.zeros((len(column), known.shape[1]), np.float32)
        vectors[present] = known
    return Verifier(
        codes if params.exact else np.arange(len(codes)),
        rows["phash"].to_numpy().view(np.uint64),
        rows["is_flat"].to_numpy(),
        params.max_hamming if params.perceptual else None,
        vectors,
        params.min_cosine,
    )


STAGE = RelationalStage(
    name="group_near_duplicates",
    version=1,
    fn=group_near_duplicates,
    params=NearDuplicateParams,
    section="near_duplicates",
    inputs=(
        NEAR_DUPLICATE_PAIRS,
        IMAGE_FINGERPRINTS,
        IMAGE_EMBEDDINGS,
        IMAGE_LABELS,
        BLOCKED_IMAGES,
        VALIDATION_OVERLAPS,
    ),
    optional=(BLOCKED_IMAGES, VALIDATION_OVERLAPS),
    outputs=(DUPLICATE_GROUPS,),
)

"""Groups of near-duplicates and the image that is kept of each (SPEC N4, N5).

Cost at 1.329 billion images, some 30% of which have near-duplicates: components over 10^9 edges in
about ten rounds of 100 GB shuffled; one join of the members with their embeddings (0.4 TB), with
verification of their thumbnails as well (1.6 TB). Of pictures that stand alone once equal copies
are one, neither is fetched. Fetched is by key: identifiers go to the files, and row groups that
hold none of them are not read; where every row group holds one, the two columns are read once,
narrowly (6.7 TB). A component is peeled by one task, its equal copies as one row; verification adds
4 KB a member, and 2.6 ms for each that is compared with a kept image to which it is related, some
300 core-hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.fingerprints import THUMBNAIL_SIDE
from pipeline.kernels.groups import (
    NONE,
    TIER_NAMES,
    Verifier,
    choose_kept,
    keep_order,
    match_blocked,
    peel_groups,
    spread_blocked,
)
from pipeline.kernels.pair_verifier import PairRule, PictureVerifier, as_thumbnails
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.turned_hashes import framed_hashes
from pipeline.kernels.vectors import l2_normalise, to_matrix
from pipeline.stages.arrow import whole_keys
from pipeline.stages.blocked import with_blocked
from pipeline.stages.choose_pair_model import model_of
from pipeline.stages.graph import components
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from pipeline.stages.verify_near_duplicates import rule_of
from schemas.images import (
    DUPLICATE_GROUPS,
    IMAGE_FINGERPRINTS,
    NEAR_DUPLICATE_PAIRS,
    PAIR_MODELS,
    VALIDATION_OVERLAPS,
)
from schemas.ingested import BLOCKED_IMAGES, IMAGE_EMBEDDINGS
from schemas.labels import IMAGE_LABELS

LINKED = "linked"
"""Tier of a member that matches the kept image through neighbours only; see the parameters."""
_PEELED = (
    "component string, content string, speaker string, kept_image_id string, tier string, "
    "distance float, is_blocked boolean"
)


def group_near_duplicates(
    near_duplicate_pairs: DataFrame,
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    image_labels: DataFrame,
    blocked_images: DataFrame | None,
    validation_overlaps: DataFrame | None,
    pair_models: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Components of the pairs, then in each the best image and those that verify against it.

    Members are compared with the kept image by the rule of the search itself: the pairs table holds
    only the best candidates of an image and one star of equal signals, so that a pair may be
    missing there that holds.

    Images that a validation set removes are never kept: what they would stand for must not go with
    them. They still link the others, because equal signals are linked as a star, whose centre may
    be one of them.
    """
    edges = near_duplicate_pairs.select(
        F.col("image_id_a").alias("one"), F.col("image_id_b").alias("two")
    )
    found = components(edges, ctx, params.task_rows, params.max_rounds)
    nodes = found.select(F.col("node").alias("image_id"), "component")
    if validation_overlaps is not None:
        nodes = nodes.join(validation_overlaps.select("image_id"), "image_id", "left_anti")
    signals = image_fingerprints.select(
        "image_id",
        "sha256",
        F.col("sha256" if params.exact else "image_id").alias("content"),
        "phash",
        "is_flat",
        (F.col("width").cast("bigint") * F.col("height")).alias("area"),
    )
    labels = image_labels.select("image_id", F.size("cluster_ids").alias("num_labels"))
    members = nodes.join(signals, on="image_id", how="inner").join(labels, "image_id", how="left")
    members = members.withColumn("num_labels", F.coalesce("num_labels", F.lit(0)))
    members = ctx.materialise(with_blocked(members, image_fingerprints, blocked_images))
    rule = rule_of(model_of(pair_models), params) if params.verify.enabled else None
    contents = ctx.materialise(_contents(members))
    rows = _with_signals(contents, image_fingerprints, image_embeddings, rule is not None, ctx)
    return {"duplicate_groups": _groups(members, rows, params, rule)}


def _contents(members: DataFrame) -> DataFrame:
    """One row a component and content, the best, with the number of contents of its component."""
    # Of equal bytes all signals are equal but for these.
    rank = F.struct((-F.col("num_labels")).alias("labels"), F.col("image_id").alias("image_id"))
    columns = ("image_id", "sha256", "phash", "is_flat", "area", "num_labels", "has_blocked_bytes")
    best = members.groupBy("component", "content").agg(
        F.min_by(F.struct(*columns), rank).alias("best")
    )
    whole = Window.partitionBy("component").rowsBetween(
        Window.unboundedPreceding, Window.unboundedFollowing
    )
    num_contents = F.count("*").over(whole).alias("num_contents")
    return best.select("component", "content", "best.*", num_contents)


def _with_signals(
    contents: DataFrame,
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    is_verified: bool,
    ctx: StageContext,
) -> DataFrame:
    """Rows with embedding and thumbnail, null where a component has nothing to compare."""
    compared = contents.where(F.col("num_contents") > 1).select("image_id")
    tables = {"embedding": image_embeddings}
    if is_verified:
        tables["thumbnail"] = image_fingerprints
    rows = contents.drop("num_contents")
    for name, table in tables.items():
        columns = ("image_id", name)
        found = ctx.scan(table, columns, _values, f"image_id string, {name} binary", among=compared)
        rows = rows.join(found, on="image_id", how="left")
    return rows


def _values(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        columns = [batch.column(0), batch.column(1).cast(pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _groups(
    members: DataFrame, rows: DataFrame, params: NearDuplicateParams, rule: PairRule | None
) -> DataFrame:
    """Peel one row a component and content, then give equal copies their kept image."""

    def peel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_keys(batches, "component"):
            yield _peel(group, params, rule)

    ordered = rows.repartition(F.col("component")).sortWithinPartitions("component", "image_id")
    peeled = ordered.mapInArrow(peel, _PEELED)
    named = members.select("image_id", "component", "content").join(
        peeled, on=["component", "content"], how="inner"
    )
    is_copy_of_kept = (F.col("kept_image_id") == F.col("speaker")) & (
        F.col("image_id") != F.col("speaker")
    )
    named = named.withColumn("tier", F.when(is_copy_of_kept, "exact").otherwise(F.col("tier")))
    return named.select("image_id", "kept_image_id", "tier", "distance", "is_blocked")


def _peel(rows: pa.Table, params: NearDuplicateParams, rule: PairRule | None) -> pa.RecordBatch:
    """Kept image of each row of one or more whole components."""
    ids, digests = one_array(rows["image_id"]), one_array(rows["sha256"])
    component = one_array(rows["component"])
    group = _codes(component)
    blocked = rows["has_blocked_bytes"].to_numpy()
    num_labels = rows["num_labels"].to_numpy().astype(np.int64)
    order = keep_order(blocked, rows["area"].to_numpy(), num_labels, digests, ids)
    verifier = _verifier(rows, digests, params, rule)
    names = [*TIER_NAMES, ""]  # NONE is -1
    if params.verify_against_kept:
        kept, tier, distance, _ = peel_groups(group, order, verifier)
    else:
        kept = choose_kept(group, order)
        tier, distance = verifier.match(np.arange(len(ids)), kept)
        is_kept = kept == np.arange(len(ids))
        tier[(tier == NONE) & ~is_kept] = len(TIER_NAMES)
        tier[is_kept], distance[is_kept] = NONE, 0.0
        names.insert(len(TIER_NAMES), LINKED)
    near_blocked = match_blocked(group, blocked, verifier)
    is_blocked = near_blocked | near_blocked[kept] | spread_blocked(kept, blocked)
    columns = [
        component,
        one_array(rows["content"]),
        ids,
        ids.take(pa.array(kept)),
        pa.array([names[t] for t in tier], pa.string()),
        pa.array(distance, pa.float32(), mask=np.isnan(distance)),
        pa.array(is_blocked),
    ]
    return pa.RecordBatch.from_arrays(columns, [c.split()[0] for c in _PEELED.split(", ")])


def _codes(values: pa.Array) -> NDArray[np.int64]:
    """Equal integers for equal values."""
    return np.asarray(values.dictionary_encode().indices.to_numpy(), np.int64)


def _verifier(
    rows: pa.Table, digests: pa.Array, params: NearDuplicateParams, rule: PairRule | None
) -> Verifier:
    codes = _codes(digests)
    vectors = None
    if params.semantic:
        column = one_array(rows["embedding"])
        present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        known = l2_normalise(to_matrix(column.take(pa.array(present))))
        vectors = np.zeros((len(column), known.shape[1]), np.float32)
        vectors[present] = known
    contents = codes if params.exact else np.arange(len(codes))
    phash, is_flat = rows["phash"].to_numpy().view(np.uint64), rows["is_flat"].to_numpy()
    if rule is not None:
        unseen = bytes(THUMBNAIL_SIDE**2)  # of a picture that is compared with none
        thumbnails = as_thumbnails(rows["thumbnail"].fill_null(unseen).to_pylist())
        hashes = framed_hashes(thumbnails)
        return PictureVerifier(
            contents, phash, is_flat, None, vectors, 1.0, thumbnails, hashes, rule
        )
    return Verifier(
        contents,
        phash,
        is_flat,
        params.max_hamming if params.perceptual else None,
        vectors,
        params.min_cosine,
    )


STAGE = RelationalStage(
    name="group_near_duplicates",
    version=3,
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
    broadcast=(PAIR_MODELS,),
    optional=(BLOCKED_IMAGES, VALIDATION_OVERLAPS),
    outputs=(DUPLICATE_GROUPS,),
)

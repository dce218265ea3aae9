"""Candidates of verification: wide limits, all turns, capped by image (SPEC N2, N3, N7).

Copies of one file are one picture here. Hashes are those of the thumbnails (``turned_hashes``), the
upright hash of one image against the eight turned ones of the other. All functions return
``image_id_a, image_id_b, tier, distance`` unless they say otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.block_keys import TablePlan, plan_tables, table_keys
from pipeline.kernels.hamming import near_hashes, near_pairs_between
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.pair_candidates import cap_candidates
from pipeline.kernels.pair_verifier import as_thumbnails
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.turned_hashes import turned_hashes
from pipeline.stages.arrow import all_rows, whole_keys
from pipeline.stages.near_pairs import ordered_pair, semantic_pairs, star_pairs
from pipeline.stages.stage import ArrowMap, SmallTable, StageContext
from schemas.images import TIERS

logger = logging.getLogger(__name__)

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
    pictures = fingerprints.select("image_id")
    if params.exact:
        one = fingerprints.groupBy("sha256").agg(F.min("image_id").alias("image_id"))
        pictures = ctx.materialise(one.select("image_id"))
    found = star_pairs(fingerprints.limit(0), "sha256", "exact")
    if params.perceptual:
        hashed = fingerprints.where(~F.col("is_flat")).select("image_id", "thumbnail")
        hashed = hashed.mapInArrow(_hash_turns, "image_id string, hashes array<bigint>")
        hashed = ctx.materialise(hashed.join(pictures, on="image_id", how="left_semi"))
        found = found.unionByName(hash_candidates(hashed, params, ctx))
    if params.semantic:
        limits = params.verify
        near = semantic_pairs(
            embeddings, cells, params, ctx, limits.min_cosine, limits.num_nearest, pictures
        )
        found = found.unionByName(near)
    once = found.groupBy(*PAIR, "tier").agg(F.min("distance").alias("distance"))
    return cap(once, params.verify.max_candidates, ctx)


def hash_candidates(hashed: DataFrame, params: NearDuplicateParams, ctx: StageContext) -> DataFrame:
    """Pairs of an upright hash and a turned one within the radius, by block-permuted keys.

    Every pair of distinct hashes within the radius is found. Images of one hash are compared with
    each other while they are few (``max_candidates``), else with the first of them, which also
    stands for them in pairs of different hashes.

    Cost: (distinct hashes, nine an image) x (tables) rows of 17 bytes shuffled once.

    Args:
        hashed: image_id and its eight ``hashes``.
        params: of the tier.
        ctx: of the stage.
    """
    limits = params.verify
    upright = hashed.select("image_id", F.col("hashes")[0].alias("hash"))
    pairs = _equal_hashes(upright, limits.max_candidates)
    base = ctx.materialise(upright.groupBy("hash").agg(F.min("image_id").alias("image_id")))
    probes = base.limit(0)
    if limits.turned:
        turned = hashed.select("image_id", F.explode(F.slice("hashes", 2, 7)).alias("hash"))
        probes = ctx.materialise(turned.groupBy("hash").agg(F.min("image_id").alias("image_id")))
    plan = plan_tables(ctx.count(base), limits.max_hamming)
    logger.info("candidate_tables", extra={"fields": {"plan": plan.explanation}})
    num_rows = plan.num_hashes * plan.num_tables * (8 if limits.turned else 1)
    num_tasks = max(1, math.ceil(num_rows / params.task_rows))
    rows = base.select("hash", F.lit(True).alias("is_base"))
    rows = rows.unionByName(probes.select("hash", F.lit(False).alias("is_base")))
    keyed = rows.mapInArrow(
        _router(plan, num_tasks), "route int, t int, hash bigint, is_base boolean"
    )
    routed = keyed.repartitionById(num_tasks, F.col("route"))
    found = routed.mapInArrow(
        _searcher(plan), "left bigint, is_base boolean, right bigint, distance float"
    )
    names = base.select(F.col("hash").alias("left"), F.col("image_id").alias("one"))
    names = names.withColumn("is_base", F.lit(True))
    turned_names = probes.select(F.col("hash").alias("left"), F.col("image_id").alias("one"))
    names = names.unionByName(turned_names.withColumn("is_base", F.lit(False)))
    two = base.select(F.col("hash").alias("right"), F.col("image_id").alias("two"))
    named = found.join(names, on=["left", "is_base"], how="inner").join(two, "right", "inner")
    named = named.where(F.col("one") != F.col("two"))  # a picture and its own mirror image
    return pairs.unionByName(ordered_pair(named, F.lit("perceptual")))


def _equal_hashes(upright: DataFrame, most: int) -> DataFrame:
    """All pairs of few images of one hash, a star of many: linear in hot hashes."""
    sizes = upright.groupBy("hash").agg(F.count("*").alias("n")).where(F.col("n") > 1)
    sized = upright.join(sizes, on="hash", how="inner")
    few = sized.where(F.col("n") <= most + 1).drop("n")
    one, two = (few.withColumnRenamed("image_id", name) for name in ("one", "two"))
    same = one.join(two, on="hash", how="inner").where(F.col("one") < F.col("two"))
    same = same.withColumn("distance", F.lit(0.0))
    many = sized.where(F.col("n") > most + 1).select("image_id", "hash")
    star = star_pairs(many, "hash", "perceptual")
    return ordered_pair(same, F.lit("perceptual")).unionByName(star)


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
    ends = [
        pairs.select(F.col(a).alias("image_id"), F.col(b).alias("other"), "tier", "distance")
        for a, b in (PAIR, PAIR[::-1])
    ]
    directed = ends[0].unionByName(ends[1]).repartition(F.col("image_id"))

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


def _hash_turns(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            rows = batch.slice(start, _BATCH)
            hashes = turned_hashes(as_thumbnails(rows.column("thumbnail").to_pylist()))
            flat = pa.array(hashes.view(np.int64).ravel())
            lists = pa.FixedSizeListArray.from_arrays(flat, hashes.shape[1])
            columns = [rows.column("image_id"), lists.cast(pa.list_(pa.int64()))]
            yield pa.RecordBatch.from_arrays(columns, ["image_id", "hashes"])


_BATCH = 4096
"""Thumbnails hashed at once: 8 turns of float64 cosine transforms of each, 8 MiB a hundred."""


def _router(plan: TablePlan, num_tasks: int) -> ArrowMap:
    """Every hash once a table, with the task where all hashes of its key meet."""

    def route(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            hashes = batch.column("hash").to_numpy().view(np.uint64)
            for table in range(plan.num_tables):
                keys = table_keys(hashes, plan, table)
                spread = hash_ints(keys.view(np.int64), table, "near_duplicate_route")
                routes = (spread % np.uint64(num_tasks)).astype(np.int32)
                tables = np.full(len(hashes), table, np.int32)
                columns = [pa.array(routes), pa.array(tables), *batch.columns]
                yield pa.RecordBatch.from_arrays(columns, ["route", "t", "hash", "is_base"])

    return route


def _searcher(plan: TablePlan) -> ArrowMap:
    """Pairs of upright hashes, and of a turned one and an upright one."""

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            tables = rows["t"].to_numpy()
            hashes = rows["hash"].to_numpy().view(np.uint64)
            is_base = rows["is_base"].to_numpy()
            order = np.lexsort((hashes, ~is_base, tables))
            bounds = np.searchsorted(tables[order], np.arange(plan.num_tables + 1))
            for table in range(plan.num_tables):
                mine = order[bounds[table] : bounds[table + 1]]
                base, probes = hashes[mine[is_base[mine]]], hashes[mine[~is_base[mine]]]
                near = near_hashes(base, plan, table)
                yield _found(near.low, near.high, near.distance, is_base=True)
                if len(base) and len(probes):
                    between = near_pairs_between(probes, base, plan, table)
                    left, right = probes[between.left], base[between.right]
                    yield _found(left, right, between.distance, is_base=False)

    return search


def _found(
    left: np.ndarray, right: np.ndarray, distance: np.ndarray, *, is_base: bool
) -> pa.RecordBatch:
    columns = [
        pa.array(left.view(np.int64)),
        pa.array(np.full(len(left), is_base)),
        pa.array(right.view(np.int64)),
        pa.array(distance.astype(np.float32)),
    ]
    return pa.RecordBatch.from_arrays(columns, ["left", "is_base", "right", "distance"])

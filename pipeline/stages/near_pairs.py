"""Pairs of near-duplicates by tier, as DataFrames (SPEC N1-N3).

Every function returns ``image_id_a, image_id_b, tier, distance``; a pair may stand twice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.block_keys import TablePlan, plan_tables, table_keys
from pipeline.kernels.cell_neighbours import nearest_in_cell
from pipeline.kernels.cells import absorb_hot, assign_cells, cosine_pairs
from pipeline.kernels.hamming import near_hashes
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import from_matrix, l2_normalise, row_products, to_matrix
from pipeline.stages.arrow import all_rows, whole_keys
from pipeline.stages.stage import SmallTable, StageContext

logger = logging.getLogger(__name__)

ArrowMap = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
HOT_COSINE = 0.9995
"""Vectors of a cell at least so near to one of them are its star; see ``absorb_hot``."""


def star_pairs(df: DataFrame, signal: str, tier: str) -> DataFrame:
    """Rows of equal signal, linked to the smallest image_id: linear in hot signals.

    Args:
        df: image_id and ``signal``.
        signal: column whose equality makes a pair.
        tier: name of the tier.
    """
    groups = df.groupBy(signal).agg(F.min("image_id").alias("first"), F.count("*").alias("n"))
    several = groups.where(F.col("n") > 1).select(signal, "first")
    members = df.join(several, on=signal, how="inner").where(F.col("image_id") != F.col("first"))
    return members.select(
        F.col("first").alias("image_id_a"),
        F.col("image_id").alias("image_id_b"),
        F.lit(tier).alias("tier"),
        F.lit(0.0).cast("float").alias("distance"),
    )


def perceptual_pairs(
    fingerprints: DataFrame, params: NearDuplicateParams, ctx: StageContext
) -> DataFrame:
    """All pairs of hashes within the radius, by block-permuted keys: recall 1 by construction.

    Cost: (distinct hashes) x (tables) rows of 16 bytes shuffled once. No task holds more than about
    ``task_rows`` of them.
    """
    hashed = fingerprints.where(~F.col("is_flat")).select("image_id", "phash")
    same = star_pairs(hashed, "phash", "perceptual")
    if params.max_hamming == 0:
        return same
    first = hashed.groupBy("phash").agg(F.min("image_id").alias("image_id"))
    distinct = ctx.materialise(first)
    plan = plan_tables(ctx.count(distinct), params.max_hamming)
    logger.info("near_duplicate_tables", extra={"fields": {"plan": plan.explanation}})
    num_tasks = max(1, math.ceil(plan.num_hashes * plan.num_tables / params.task_rows))
    keyed = distinct.select("phash").mapInArrow(
        _router(plan, num_tasks), "route int, t int, phash bigint"
    )
    routed = keyed.repartitionById(num_tasks, F.col("route"))
    found = routed.mapInArrow(_searcher(plan), "low bigint, high bigint, distance float")
    one = distinct.select(F.col("phash").alias("low"), F.col("image_id").alias("one"))
    two = distinct.select(F.col("phash").alias("high"), F.col("image_id").alias("two"))
    named = found.join(one, on="low", how="inner").join(two, on="high", how="inner")
    return same.unionByName(ordered_pair(named, F.lit("perceptual")))


def semantic_pairs(
    embeddings: DataFrame,
    cells: SmallTable,
    params: NearDuplicateParams,
    min_cosine: float,
    num_nearest: int | None = None,
) -> DataFrame:
    """Pairs of embeddings above the cosine that share a cell.

    Cost: ``num_probes`` copies of every embedding shuffled once; a task holds one cell.

    Args:
        embeddings: image_id and embedding.
        cells: centroids.
        params: how many cells an image is compared in.
        min_cosine: of a pair.
        num_nearest: the nearest that each image has of its own in a cell; None for all.
    """

    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        centroids = to_matrix(one_array(cells.read()["centroid"]))
        for batch in batches:
            yield from _cells_of(batch, centroids, params.num_probes)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_keys(batches, "cell"):
            yield from _pairs_of_cells(group, min_cosine, num_nearest)

    placed = embeddings.select("image_id", "embedding").mapInArrow(
        assign, "cell int, image_id string, embedding binary, cells array<int>"
    )
    grouped = placed.repartition(F.col("cell")).sortWithinPartitions("cell", "image_id")
    found = grouped.mapInArrow(search, "one string, two string, distance float")
    return ordered_pair(found, F.lit("semantic"))


def ordered_pair(df: DataFrame, tier: Column, *more: str) -> DataFrame:
    """Columns one, two, distance and more as a pair with the smaller image_id first."""
    return df.select(
        F.least("one", "two").alias("image_id_a"),
        F.greatest("one", "two").alias("image_id_b"),
        tier.alias("tier"),
        F.col("distance").cast("float").alias("distance"),
        *more,
    )


def _router(plan: TablePlan, num_tasks: int) -> ArrowMap:
    """Every hash once a table, with the task where all hashes of its key meet."""

    def route(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            hashes = batch.column("phash").to_numpy().view(np.uint64)
            for table in range(plan.num_tables):
                keys = table_keys(hashes, plan, table)
                spread = hash_ints(keys.view(np.int64), table, "near_duplicate_route")
                routes = (spread % np.uint64(num_tasks)).astype(np.int32)
                tables = np.full(len(hashes), table, np.int32)
                columns = [pa.array(routes), pa.array(tables), batch.column("phash")]
                yield pa.RecordBatch.from_arrays(columns, ["route", "t", "phash"])

    return route


def _searcher(plan: TablePlan) -> ArrowMap:
    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            tables = rows["t"].to_numpy()
            hashes = rows["phash"].to_numpy().view(np.uint64)
            order = np.argsort(tables, kind="stable")
            bounds = np.searchsorted(tables[order], np.arange(plan.num_tables + 1))
            for table in range(plan.num_tables):
                part = hashes[order[bounds[table] : bounds[table + 1]]]
                if len(part) > 1:
                    found = near_hashes(part, plan, table)
                    columns = [found.low.view(np.int64), found.high.view(np.int64)]
                    columns.append(found.distance.astype(np.float32))
                    arrays = [pa.array(c) for c in columns]
                    yield pa.RecordBatch.from_arrays(arrays, ["low", "high", "distance"])

    return search


def _cells_of(
    batch: pa.RecordBatch, centroids: NDArray[np.float32], num_probes: int
) -> Iterator[pa.RecordBatch]:
    """One row a vector and probe; zero vectors have no direction and match nothing."""
    if batch.num_rows == 0 or len(centroids) == 0:
        return
    vectors = l2_normalise(to_matrix(batch.column("embedding")))
    present = np.flatnonzero(np.any(vectors != 0, axis=1))
    vectors = vectors[present]
    cells = assign_cells(vectors, centroids, num_probes)
    ids = batch.column("image_id").take(pa.array(present))
    packed = from_matrix(vectors).cast(pa.binary())
    lists = pa.FixedSizeListArray.from_arrays(pa.array(cells.ravel()), cells.shape[1])
    lists = lists.cast(pa.list_(pa.int32()))
    for probe in range(cells.shape[1]):
        columns = [pa.array(cells[:, probe]), ids, packed, lists]
        yield pa.RecordBatch.from_arrays(columns, ["cell", "image_id", "embedding", "cells"])


def _pairs_of_cells(
    group: pa.Table, tau: float, num_nearest: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Pairs of one or more whole cells, rows sorted by (cell, image_id)."""
    numbers = group["cell"].to_numpy()
    bounds = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1], True])
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        rows = group.slice(start, stop - start)
        vectors = to_matrix(one_array(rows["embedding"]))
        probes = one_array(rows["cells"])
        cells = probes.flatten().to_numpy().reshape(len(rows), -1)
        leader = absorb_hot(vectors, max(HOT_COSINE, tau))
        own = np.arange(len(rows))
        leads, led = np.flatnonzero(leader == own), np.flatnonzero(leader != own)
        if num_nearest is None:
            found = cosine_pairs(vectors[leads], tau, cells=cells[leads], cell=int(numbers[start]))
        else:  # a pair may be among the nearest of one shared cell only
            found = nearest_in_cell(vectors[leads], tau, num_nearest)
        one = np.concatenate([leads[found.left], leader[led]])
        two = np.concatenate([leads[found.right], led])
        cosine = row_products(vectors, vectors, one, two)
        ids = one_array(rows["image_id"])
        distance = np.maximum(1.0 - cosine, 0.0).astype(np.float32)
        columns = [ids.take(pa.array(one)), ids.take(pa.array(two)), pa.array(distance)]
        yield pa.RecordBatch.from_arrays(columns, ["one", "two", "distance"])

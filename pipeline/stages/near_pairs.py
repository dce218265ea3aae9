"""Pairs of near-duplicates by tier, as DataFrames (SPEC N1-N3).

Every function returns ``image_id_a, image_id_b, tier, distance``; a pair may stand twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.cell_neighbours import nearest_in_cell
from pipeline.kernels.cells import absorb_hot, assign_cells, cosine_pairs
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import from_matrix, l2_normalise, row_products, to_matrix
from pipeline.stages.packed import PACKED_DDL, in_blocks, pack, shuffle_packed, unpack
from pipeline.stages.stage import SmallTable, StageContext

TASK_BYTES = 64 << 20
"""Embeddings and what goes with them that a task of the semantic tier holds."""
_ROW_BYTES = 64
"""Of an embedding's image_id and cells, about."""
BLOCK_ROWS = 1 << 14
"""Embeddings that are assigned to cells and packed at once."""
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


def semantic_pairs(
    embeddings: DataFrame,
    cells: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
    min_cosine: float,
    num_nearest: int | None = None,
    among: DataFrame | None = None,
) -> DataFrame:
    """Pairs of embeddings above the cosine that share a cell.

    Cost: ``num_probes`` copies of every embedding shuffled once, packed. A task holds about
    ``TASK_BYTES`` of them, or the largest cell.

    Args:
        embeddings: image_id and embedding, an input of the stage.
        cells: centroids.
        params: how many cells an image is compared in.
        ctx: of the stage.
        min_cosine: of a pair.
        num_nearest: the nearest that each image has of its own in a cell; None for all.
        among: images that it does not have take no part.
    """
    num_tasks = num_cell_tasks(ctx.count(embeddings), cells, params)

    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        centroids = to_matrix(one_array(cells.read()["centroid"]))
        for block in in_blocks(batches, BLOCK_ROWS):
            for start in range(0, block.num_rows, BLOCK_ROWS):  # a batch may be larger
                part = block.slice(start, BLOCK_ROWS)
                for rows in cells_of(part, centroids, params.num_probes):
                    yield pack(rows, rows.column("cell").to_numpy() % num_tasks)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, blocks in groupby(unpack(batches), key=lambda block: block[0]):
            rows = pa.concat_tables([block for _, _, block in blocks]).combine_chunks()
            by = [("cell", "ascending"), ("image_id", "ascending")]
            order = pc.sort_indices(rows.select(["cell", "image_id"]), sort_keys=by)
            yield from pairs_of_cells(rows.take(order), min_cosine, num_nearest)

    columns = ("image_id", "embedding")
    placed = ctx.scan(embeddings, columns, assign, PACKED_DDL, among=among)
    found = shuffle_packed(placed, num_tasks).mapInArrow(
        search, "one string, two string, distance float"
    )
    return ordered_pair(found, F.lit("semantic"))


def num_cell_tasks(num_vectors: int, cells: SmallTable, params: NearDuplicateParams) -> int:
    """Tasks that hold about ``TASK_BYTES`` of the vectors of their cells."""
    width: int = cells.read().slice(0, 1)["centroid"].nbytes
    num_bytes = num_vectors * params.num_probes * (width + _ROW_BYTES)
    return max(1, math.ceil(num_bytes / TASK_BYTES))


def ordered_pair(df: DataFrame, tier: Column, *more: str) -> DataFrame:
    """Columns one, two, distance and more as a pair with the smaller image_id first."""
    return df.select(
        F.least("one", "two").alias("image_id_a"),
        F.greatest("one", "two").alias("image_id_b"),
        tier.alias("tier"),
        F.col("distance").cast("float").alias("distance"),
        *more,
    )


def cells_of(
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


def pairs_of_cells(
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

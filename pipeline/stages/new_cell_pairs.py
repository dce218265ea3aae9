"""Pairs of embeddings above the cosine, those of an earlier run taken over (SPEC N2).

While the centroids are the same, an image's cells follow from its own embedding. So two images that
are as they were make the same pair as before, and a cell compares its new members with all. One
thing ties a pair to others: a *hot* cell collapses masses of nearly equal vectors into stars
(``cells.absorb_hot``), which depend on all its members. Cells that are hot, or were, are compared
anew whole, and old pairs that were theirs are dropped.

Cost at 1.329 billion images and 10 million new ones: embeddings of both versions read once side by
side (2.7 TB) and each assigned to its cells (a third of a search of all: 2.6 x 10^16
operations with 77,000 cells, linear in the corpus as long as the cells stay); 3 probes of 1 KB
shuffled (4 TB); 390 new members a cell compared with 52,000, 4 x 10^14 operations in place of
2.5 x 10^16 (computed, not measured).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.new_vectors import is_hot, new_cosine_pairs
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import row_products, to_matrix
from pipeline.stages.earlier import CHANGE, GONE, NEW, SAME, EarlierRun
from pipeline.stages.near_pairs import (
    BLOCK_ROWS,
    HOT_COSINE,
    cells_of,
    num_cell_tasks,
    ordered_pair,
    pairs_of_cells,
)
from pipeline.stages.packed import PACKED_DDL, in_blocks, pack, shuffle_packed, unpack
from pipeline.stages.stage import SmallTable, StageContext

logger = logging.getLogger(__name__)

MOST_COSINE = 0.998
"""Least cosine up to which a star's pair is one by its cosine too: its ends are two steps of
``HOT_COSINE`` apart at most, and cos(2 acos 0.9995) is 0.998."""
_PAIR, _NEW, _GONE, _HOT = 0, 1, 2, 3
"""What a row of the search tells: a pair, an image that is new or gone, a member of a hot cell."""
_FOUND = pa.schema(
    [
        ("kind", pa.int32()),
        ("one", pa.string()),
        ("two", pa.string()),
        ("distance", pa.float32()),
        ("cell", pa.int32()),
        ("cells", pa.list_(pa.int32())),
    ]
)
_FOUND_DDL = "kind int, one string, two string, distance float, cell int, cells array<int>"


def known_semantic_pairs(
    embeddings: DataFrame,
    cells: SmallTable,
    earlier: EarlierRun,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> DataFrame | None:
    """What ``near_pairs.semantic_pairs`` returns, old pairs taken over; None where they cannot be.

    Args:
        embeddings: image_id and embedding, an input of the stage.
        cells: centroids of this run.
        earlier: run of the same parameters.
        params: ``min_cosine``, ``num_probes``.
        ctx: of the stage.

    Returns:
        image_id_a, image_id_b, tier, distance; a pair may stand twice.
    """
    if reason := _obstacle(earlier, params):
        logger.info("semantic_from_scratch", extra={"fields": {"reason": reason}})
        return None
    num_tasks = num_cell_tasks(ctx.count(embeddings), cells, params)

    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        centroids = to_matrix(one_array(cells.read()["centroid"]))
        for block in in_blocks(batches, BLOCK_ROWS):
            for change in (SAME, NEW, GONE):
                part = block.filter(pc.equal(block.column(CHANGE), change))
                for rows in cells_of(part, centroids, params.num_probes):
                    marked = rows.append_column(CHANGE, pa.repeat(change, len(rows)))
                    yield pack(marked, rows.column("cell").to_numpy() % num_tasks)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, blocks in groupby(unpack(batches), key=lambda block: block[0]):
            rows = pa.concat_tables([block for _, _, block in blocks]).combine_chunks()
            by = [("cell", "ascending"), ("image_id", "ascending")]
            order = pc.sort_indices(rows.select(["cell", "image_id"]), sort_keys=by)
            yield from cell_changes(rows.take(order), params.min_cosine)

    placed = earlier.changes(
        "image_embeddings", ("image_id", "embedding"), assign, PACKED_DDL, "image_fingerprints"
    )
    told = ctx.materialise(shuffle_packed(placed, num_tasks).mapInArrow(search, _FOUND_DDL))
    found = told.where(F.col("kind") == _PAIR).select("one", "two", "distance")
    taken = ctx.materialise(_old_pairs(earlier, told))
    num_new, num_gone, num_found = (
        ctx.count(told.where(F.col("kind") == kind)) for kind in (_NEW, _GONE, _PAIR)
    )
    fields = {
        "embeddings_new_or_changed": num_new,
        "embeddings_gone_or_changed": num_gone,
        "pairs_taken_over": ctx.count(taken),
        "pairs_found": num_found,
    }
    logger.info("semantic_incremental", extra={"fields": fields})
    return taken.unionByName(ordered_pair(found, F.lit("semantic")))


def _obstacle(earlier: EarlierRun, params: NearDuplicateParams) -> str:
    """Why old pairs cannot be taken over; empty where they can."""
    if not earlier.has_same("embedding_cells"):
        return "other cells: near_duplicates.cells_version keeps those of an earlier train_cells"
    if params.min_cosine > MOST_COSINE:
        return f"min_cosine {params.min_cosine} > {MOST_COSINE}: stars are not told from pairs"
    return ""


def _old_pairs(earlier: EarlierRun, told: DataFrame) -> DataFrame:
    """Published pairs of images that are as they were, but for those of hot cells."""
    pairs = earlier.output("near_duplicate_candidates").where(F.col("tier") == "semantic")
    gone = told.where(F.col("kind") == _GONE).select("one")
    hot = told.where(F.col("kind") == _HOT).select("one", "cell", "cells")
    for end in "ab":
        left = gone.withColumnRenamed("one", f"image_id_{end}")
        pairs = pairs.join(left, on=f"image_id_{end}", how="left_anti")
    a, b = (
        hot.select(
            F.col("one").alias(f"image_id_{end}"), "cell", F.col("cells").alias(f"cells_{end}")
        )
        for end in "ab"
    )
    ends = ("image_id_a", "image_id_b")
    of_hot = pairs.select(*ends).join(a, on="image_id_a", how="inner")
    of_hot = of_hot.join(b, on=["image_id_b", "cell"], how="inner")
    lowest = F.array_min(F.array_intersect("cells_a", "cells_b"))
    theirs = of_hot.where(F.col("cell") == lowest).select(*ends)
    return pairs.join(theirs, on=list(ends), how="left_anti")


def cell_changes(rows: pa.Table, tau: float) -> Iterator[pa.RecordBatch]:
    """What has changed in one or more whole cells.

    Args:
        rows: of ``near_pairs.cells_of`` with ``change``, sorted by (cell, image_id).
        tau: least cosine.

    Yields:
        rows of ``_FOUND``. A cell without change that is not hot tells nothing.
    """
    numbers = rows["cell"].to_numpy()
    bounds = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1], True])
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield from _changes_of_cell(rows.slice(start, stop - start), int(numbers[start]), tau)


def _changes_of_cell(rows: pa.Table, cell: int, tau: float) -> Iterator[pa.RecordBatch]:
    change = rows[CHANGE].to_numpy()
    vectors = to_matrix(one_array(rows["embedding"]))
    yield from _images(rows, cell, change)
    now, then = change != GONE, change != NEW
    limit = max(HOT_COSINE, tau)
    if is_hot(vectors[now], limit) or is_hot(vectors[then], limit):
        members = rows.filter(pa.array(now))
        for pairs in pairs_of_cells(members, tau):
            yield _told(_PAIR, pairs["one"], pairs["two"], pairs["distance"])
        ids = one_array(members["image_id"])
        yield _told(_HOT, ids, cell=cell, cells=one_array(members["cells"]))
        return
    kept = np.flatnonzero(now)
    if not np.any(change[kept] == NEW):
        return
    probes = one_array(rows["cells"]).flatten().to_numpy().reshape(len(rows), -1)[kept]
    found = new_cosine_pairs(vectors[kept], change[kept] == NEW, tau, probes, cell)
    one, two = kept[found.left], kept[found.right]
    distance = np.maximum(1.0 - row_products(vectors, vectors, one, two), 0.0).astype(np.float32)
    ids = one_array(rows["image_id"])
    yield _told(_PAIR, ids.take(pa.array(one)), ids.take(pa.array(two)), pa.array(distance))


def _images(rows: pa.Table, cell: int, change: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Images that are new or gone, each told by its first cell alone."""
    first = pc.list_element(one_array(rows["cells"]), 0).to_numpy() == cell
    for kind, which in ((_NEW, NEW), (_GONE, GONE)):
        mask = first & (change == which)
        if mask.any():
            yield _told(kind, one_array(rows["image_id"]).filter(pa.array(mask)))


def _told(
    kind: int,
    one: pa.Array,
    two: pa.Array | None = None,
    distance: pa.Array | None = None,
    cell: int | None = None,
    cells: pa.Array | None = None,
) -> pa.RecordBatch:
    count = len(one)
    columns = [
        pa.repeat(pa.scalar(kind, pa.int32()), count),
        one,
        pa.nulls(count, pa.string()) if two is None else two,
        pa.nulls(count, pa.float32()) if distance is None else distance,
        pa.repeat(pa.scalar(cell, pa.int32()), count),
        pa.nulls(count, pa.list_(pa.int32())) if cells is None else cells,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_FOUND)

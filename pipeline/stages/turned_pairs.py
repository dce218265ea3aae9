"""Pairs of an upright hash and a turned one, by two packed shuffles (SPEC N2, N3, N7).

As ``hash_pairs``, with the eight hashes of an image, sixteen of one in a frame, in place of its
one. Thumbnails are read once and hashed; then the hashes alone go, once a table, to the task where
all hashes of a key meet, and pairs of hashes come out. Then the names (``turned_names``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.block_keys import TablePlan, plan_tables, table_routes
from pipeline.kernels.hamming import near_hashes, near_pairs_between
from pipeline.kernels.pair_search import NUM_TURNS
from pipeline.kernels.pair_verifier import as_thumbnails
from pipeline.kernels.turned_hashes import framed_hashes
from pipeline.stages.near_pairs import ordered_pair
from pipeline.stages.packed import PACKED_DDL, in_blocks, pack, shuffle_packed, unpack
from pipeline.stages.stage import ArrowMap, StageContext
from pipeline.stages.turned_names import (
    NAMED_DDL,
    PAIR,
    TURNED,
    U64,
    UPRIGHT,
    hashed_blocks,
    name_pairs,
    other_hashes,
    pack_names,
    routes_of,
    unsigned,
)

logger = logging.getLogger(__name__)

THUMBNAILS = 4096
"""Hashed at once: 8 turns of float64 cosine transforms of each, 8 MiB a hundred."""
BLOCK = 1 << 16
"""Images whose hashes are packed at once."""
_NAME_SHARE = 4
"""Tasks that name hashes for one that compares them: a name has four times a hash's bytes."""


def turned_pairs(
    fingerprints: DataFrame,
    pictures: DataFrame | None,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> DataFrame:
    """Pairs of an upright hash and a turned one within the radius, by block-permuted keys.

    Every pair of distinct hashes within the radius is found. Images of one hash are compared with
    each other while they are few (``max_candidates``), else with the first of them, which also
    stands for them in pairs of different hashes. Flat images match nothing.

    Cost: one narrow read of the thumbnails; (hashes, eight an image) x (tables) x 8 bytes shuffled
    once, then image_id and hash once for each of the eight. A task holds about ``task_rows`` rows.

    Args:
        fingerprints: image_id, is_flat, thumbnail; an input of the stage.
        pictures: image_id of those that take part; None for all.
        params: of the tier.
        ctx: of the stage.

    Returns:
        image_id_a < image_id_b, tier, distance (bits); a pair may stand twice.
    """
    limits = params.verify
    num_turns = 8 if limits.turned else 1
    num_images = ctx.count(fingerprints)
    plan = plan_tables(num_images, limits.max_hamming)
    logger.info("candidate_tables", extra={"fields": {"plan": plan.explanation}})
    layout = _Layout.of(plan, num_images * num_turns, params.task_rows)
    name_routes = _NAME_SHARE * max(1, math.ceil(num_images * num_turns / params.task_rows))
    columns = ("image_id", "is_flat", "thumbnail")
    hashed = ctx.materialise(
        ctx.scan(fingerprints, columns, _hash_turns(num_turns), PACKED_DDL, among=pictures)
    )
    keyed = hashed.mapInArrow(_pack_hashes(plan, layout), PACKED_DDL)
    found = shuffle_packed(keyed, layout.num_tasks).mapInArrow(
        _search(plan, layout, name_routes), PACKED_DDL
    )
    blocks = hashed.mapInArrow(pack_names(name_routes), PACKED_DDL).unionByName(found)
    named = shuffle_packed(blocks, name_routes).mapInArrow(
        name_pairs(limits.max_candidates), NAMED_DDL
    )
    # Both ends of a pair were named by different tasks; images of one hash have both already.
    is_whole = ~F.col("is_turned") & (F.col("left") == F.col("right"))
    own = F.when(is_whole, F.struct("one", "two")).alias("own")
    ends = (F.max(name).alias(name) for name in ("one", "two", "distance"))
    whole = named.groupBy("left", "right", "is_turned", own).agg(*ends)
    whole = whole.where(F.col("one") != F.col("two"))  # a picture and its own mirror image
    return ordered_pair(whole, F.lit("perceptual"))


class _Layout(NamedTuple):
    """Tasks of the first shuffle: some for each table, or some tables for each.

    Attributes:
        num_routes: tasks that share a table.
        num_together: tables that share a task; 1 where ``num_routes`` is more.
        num_tasks: in all.
    """

    num_routes: int
    num_together: int
    num_tasks: int

    @classmethod
    def of(cls, plan: TablePlan, num_hashes: int, task_rows: int) -> _Layout:
        num_routes = max(1, math.ceil(num_hashes / task_rows))
        num_together = min(plan.num_tables, max(1, task_rows // max(1, num_hashes)))
        return cls(num_routes, num_together, -(-plan.num_tables // num_together) * num_routes)

    def first_task(self, table: int) -> int:
        return table // self.num_together * self.num_routes


def _hash_turns(num_turns: int) -> ArrowMap:
    """Blocks of image_id and its hashes, of images that are not flat: the first so many turns of
    the whole and of what a frame encloses."""
    columns_of = np.r_[:num_turns, NUM_TURNS : NUM_TURNS + num_turns]

    def hashed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sharp = batch.filter(pc.invert(batch.column("is_flat")))
            for start in range(0, sharp.num_rows, THUMBNAILS):
                rows = sharp.slice(start, THUMBNAILS)
                hashes = framed_hashes(as_thumbnails(rows.column("thumbnail").to_pylist()))
                flat = pa.array(hashes[:, columns_of].ravel().view(np.int64))
                columns = [
                    rows.column("image_id"),
                    pa.FixedSizeListArray.from_arrays(flat, 2 * num_turns),
                ]
                yield pa.RecordBatch.from_arrays(columns, ["image_id", "hashes"])

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in in_blocks(hashed(batches), BLOCK):
            yield pack(block, np.zeros(block.num_rows, np.int64))

    return run


def _pack_hashes(plan: TablePlan, layout: _Layout) -> ArrowMap:
    """Distinct hashes of a block, once a table."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, hashes in hashed_blocks(batches):
            for side, values in ((UPRIGHT, hashes[:, 0]), (TURNED, other_hashes(hashes).hashes)):
                distinct = np.unique(values)
                if not len(distinct):
                    continue
                rows = pa.RecordBatch.from_arrays([pa.array(distinct.view(np.int64))], ["hash"])
                for table in range(plan.num_tables):
                    routes = table_routes(distinct, plan, table, layout.num_routes)
                    first = layout.first_task(table)
                    yield pack(rows, routes, first_route=first, kind=2 * table + side)

    return run


def _search(plan: TablePlan, layout: _Layout, name_routes: int) -> ArrowMap:
    """Pairs of a task's hashes, packed for the tasks that name their ends."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, of_task in groupby(unpack(batches), key=lambda block: block[0]):
            for table, of_table in groupby(of_task, key=lambda block: block[1] // 2):
                parts: tuple[list[U64], list[U64]] = ([], [])
                for _, kind, rows in of_table:
                    parts[kind % 2].append(unsigned(rows["hash"]))
                upright, turned = (np.unique(np.concatenate([_NONE, *side])) for side in parts)
                near = near_hashes(upright, plan, table)
                yield from _pack_pairs(near.low, near.high, name_routes, is_turned=False)
                between = near_pairs_between(turned, upright, plan, table)
                left, right = turned[between.left], upright[between.right]
                yield from _pack_pairs(left, right, name_routes, is_turned=True)

    return run


def _pack_pairs(
    left: U64, right: U64, name_routes: int, *, is_turned: bool
) -> Iterator[pa.RecordBatch]:
    """Pairs of hashes, once for the task of each end."""
    if not len(left):
        return
    for is_right, ends in enumerate((left, right)):
        columns = {
            "left": pa.array(left.view(np.int64)),
            "right": pa.array(right.view(np.int64)),
            "is_turned": pa.array(np.full(len(left), is_turned)),
            "is_right": pa.array(np.full(len(left), bool(is_right))),
        }
        rows = pa.RecordBatch.from_pydict(columns)
        yield pack(rows, routes_of(ends, name_routes), kind=PAIR)


_NONE = np.zeros(0, np.uint64)

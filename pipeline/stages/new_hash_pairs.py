"""All pairs of perceptual hashes within the radius, those of an earlier run taken over (SPEC N2).

A pair is a pair of hashes, not of images: it stands while some image has either hash, whichever it
is. So pairs of hashes that were there and still are come from the table that the earlier run
published, and only hashes that it did not have are searched, among all.

Cost at 1.329 billion images and 10 million new ones: the columns image_id and hash of both versions
read once side by side (80 GB, no shuffle), two semi-joins of 10 million hashes with them, the old
pairs joined with their images' hashes (10^9 rows, twice), and 8 bytes a hash shuffled for each
8 million new ones (20 GB). Looking up 1.3 x 10^9 hashes in two parts of the batch, eight tables
each and some 0.1 us a table, is 0.6 core-hours (computed, not measured). No old hash meets an old
one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.block_keys import TablePlan, plan_tables
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.new_hashes import pairs_with_new
from pipeline.stages.earlier import CHANGE, GONE, NEW, SAME, EarlierRun
from pipeline.stages.packed import PACKED_DDL, in_blocks, pack, shuffle_packed, unpack
from pipeline.stages.stage import ArrowMap, StageContext

logger = logging.getLogger(__name__)

MOST_NEW = 0.25
"""Share of new hashes from which searching all anew costs less."""
_CORPUS_SHARE = 4
"""Tasks that look up a corpus for one that holds a table: with one row a hash they are short."""
_BATCH_SHARE = 4
"""New hashes that a task holds, in ``task_rows``: 32 bytes each with the index."""
_NEW_BLOCK, _CORPUS_BLOCK = 0, 1
"""Kinds of blocks, in the order in which a task needs them."""
_BLOCK = 1 << 20
_HASHES = ("image_id", "phash", "is_flat")
_CHANGED_DDL = "image_id string, phash bigint, is_flat boolean, change tinyint"
_PAIR_DDL = "low bigint, high bigint, distance int"


def known_hash_pairs(
    fingerprints: DataFrame,
    earlier: EarlierRun,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> DataFrame | None:
    """All pairs of distinct hashes within the radius; None where a search of all is cheaper.

    Args:
        fingerprints: image_id, phash, is_flat; the stage's input.
        earlier: run of the same radius, by which its pairs table is whole.
        params: ``max_hamming``, ``task_rows``.
        ctx: of the stage.

    Returns:
        low, high (bigint, ordered as unsigned integers), distance; each pair once.
    """
    before = earlier.input("image_fingerprints")
    told = earlier.changes("image_fingerprints", _HASHES, _changed, _CHANGED_DDL)
    changed = ctx.materialise(told)
    new = ctx.materialise(_without(_hashes_of(changed, NEW), before))
    num_new, num_images = ctx.count(new), ctx.count(fingerprints)
    fields = _tally(changed, ctx) | {"new_hashes": num_new}
    if num_new > MOST_NEW * num_images:
        fields["reason"] = f"more than {MOST_NEW:.0%} of the hashes are new"
        logger.info("perceptual_from_scratch", extra={"fields": fields})
        return None
    lost = ctx.materialise(_without(_hashes_of(changed, GONE), fingerprints))
    taken = ctx.materialise(_old_pairs(before, lost, earlier))
    found = ctx.materialise(_found_pairs(fingerprints, new, num_new, num_images, params, ctx))
    fields |= {"pairs_taken_over": ctx.count(taken), "pairs_found": ctx.count(found)}
    logger.info("perceptual_incremental", extra={"fields": fields})
    return taken.unionByName(found)


def _changed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.filter(pc.not_equal(batch.column(CHANGE), SAME))


def _tally(changed: DataFrame, ctx: StageContext) -> dict[str, object]:
    """Images that are new, changed and gone, for the log."""
    new, gone = (changed.where(F.col(CHANGE) == change) for change in (NEW, GONE))
    num_both = ctx.count(new.join(gone.select("image_id"), on="image_id", how="left_semi"))
    return {
        "images_new": ctx.count(new) - num_both,
        "images_changed": num_both,
        "images_gone": ctx.count(gone) - num_both,
    }


def _hashes_of(changed: DataFrame, change: int) -> DataFrame:
    rows = changed.where(~F.col("is_flat") & (F.col(CHANGE) == change))
    return rows.select("phash").distinct()


def _without(hashes: DataFrame, fingerprints: DataFrame) -> DataFrame:
    """Hashes that none of these images has; the hashes are few."""
    sharp = fingerprints.where(~F.col("is_flat")).select("phash")
    there = sharp.join(hashes, on="phash", how="left_semi").distinct()
    return hashes.join(there, on="phash", how="left_anti")


def _old_pairs(before: DataFrame, lost: DataFrame, earlier: EarlierRun) -> DataFrame:
    """Pairs of the earlier run as hashes, but for those that no image has any more."""
    pairs = earlier.output("near_duplicate_candidates")
    # Distance 0 links copies of one hash.
    pairs = pairs.where((F.col("tier") == "perceptual") & (F.col("distance") > 0))
    for end in "ab":
        hashes = before.select(
            F.col("image_id").alias(f"image_id_{end}"), F.col("phash").alias(end)
        )
        pairs = pairs.join(hashes, on=f"image_id_{end}", how="inner")
        gone = lost.select(F.col("phash").alias(end))
        pairs = pairs.join(gone, on=end, how="left_anti")
    # Unsigned order: the sign bit flipped, Spark's signed one.
    flipped = [F.col(end).bitwiseXOR(F.lit(-(2**63)).cast("bigint")) for end in "ab"]
    is_ordered = flipped[0] < flipped[1]
    return pairs.select(
        F.when(is_ordered, F.col("a")).otherwise(F.col("b")).alias("low"),
        F.when(is_ordered, F.col("b")).otherwise(F.col("a")).alias("high"),
        F.col("distance").cast("int").alias("distance"),
    )


def _found_pairs(
    fingerprints: DataFrame,
    new: DataFrame,
    num_new: int,
    num_images: int,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> DataFrame:
    """Pairs with a new hash: every hash there is goes to a task that holds a part of the batch."""
    num_routes = max(1, math.ceil(_CORPUS_SHARE * num_images / params.task_rows))
    num_parts = max(1, math.ceil(num_new / (_BATCH_SHARE * params.task_rows)))
    plan = plan_tables(math.ceil(num_new / num_parts), params.max_hamming)
    logger.info("near_duplicate_tables", extra={"fields": {"plan": plan.explanation}})
    columns = ("phash", "is_flat")
    corpus = ctx.scan(fingerprints, columns, _pack_corpus(num_routes, num_parts), PACKED_DDL)
    batch = new.mapInArrow(_pack_new(num_routes, num_parts), PACKED_DDL)
    blocks = shuffle_packed(corpus.unionByName(batch), num_routes * num_parts)
    found = blocks.mapInArrow(_look_up(plan), _PAIR_DDL)
    return found.distinct()  # two new hashes find each other


def _pack_corpus(num_routes: int, num_parts: int) -> ArrowMap:
    """Distinct hashes of a block, once for each part of the batch."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sharp = (b.filter(pc.invert(b.column("is_flat"))).select(["phash"]) for b in batches)
        for block in in_blocks(sharp, _BLOCK):
            hashes = np.unique(block.column("phash").to_numpy())
            rows = pa.RecordBatch.from_arrays([pa.array(hashes)], ["phash"])
            routes = _spread(hashes, num_routes, "new_hash_corpus")
            for part in range(num_parts):
                yield pack(rows, routes, first_route=part * num_routes, kind=_CORPUS_BLOCK)

    return run


def _pack_new(num_routes: int, num_parts: int) -> ArrowMap:
    """New hashes, each to all tasks of its part."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            parts = _spread(batch.column("phash").to_numpy(), num_parts, "new_hash_parts")
            for route in range(num_routes):
                yield pack(batch, parts * num_routes + route, kind=_NEW_BLOCK)

    return run


def _look_up(plan: TablePlan) -> ArrowMap:
    """Pairs of a task's corpus with its part of the batch."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, of_route in groupby(unpack(batches), key=lambda block: block[0]):
            sides = {}
            for kind, blocks in groupby(of_route, key=lambda block: block[1]):
                hashes = pa.concat_tables(rows for _, _, rows in blocks)["phash"].to_numpy()
                sides[kind] = np.unique(hashes.view(np.uint64))
            if len(sides) < 2:
                continue
            found = pairs_with_new(sides[_CORPUS_BLOCK], sides[_NEW_BLOCK], plan)
            columns = [found.low.view(np.int64), found.high.view(np.int64)]
            columns.append(found.distance.astype(np.int32))
            yield pa.RecordBatch.from_arrays(
                [pa.array(column) for column in columns], ["low", "high", "distance"]
            )

    return run


def _spread(hashes: np.ndarray, num_tasks: int, stream: str) -> np.ndarray:
    return (hash_ints(hashes, 0, stream) % np.uint64(num_tasks)).astype(np.int64)

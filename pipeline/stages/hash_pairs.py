"""Pairs of perceptual hashes within a radius, by three packed shuffles (SPEC N2, N3).

First the hashes alone: each goes once a table to the task where all hashes of its key meet, and
pairs of hashes come out. Then the names: images and pairs go to the task of their hash. Last the
pairs alone, whose ends were named by different tasks.
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
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.block_keys import TablePlan, plan_tables, table_routes
from pipeline.kernels.collapse import split_firsts
from pipeline.kernels.hamming import NearHashes, near_hashes
from pipeline.kernels.hashing import hash_ints
from pipeline.stages.near_pairs import ordered_pair
from pipeline.stages.packed import PACKED_DDL, in_blocks, pack, shuffle_packed, unpack
from pipeline.stages.stage import ArrowMap, StageContext

logger = logging.getLogger(__name__)

HASH_BLOCK, NAME_BLOCK = 1 << 20, 1 << 18
"""Rows that are packed at once."""
_NAME_SHARE = 4
"""Tasks that name hashes for one that compares them: a name has four times a hash's bytes."""
_NAME, _PAIR, _COPY = 0, 1, 2
"""Kinds of blocks of the second shuffle, in the order in which a task needs them."""
_LOW, _HIGH, _STAR = 0, 1, 2
"""Kinds of blocks of the third: pairs with the name of one end, and whole pairs."""
_HALF = ["low", "high", "distance", "name"]
_WHOLE_DDL = "one string, two string, distance float"
_WHOLE = pa.schema([("one", pa.string()), ("two", pa.string()), ("distance", pa.float32())])


def perceptual_pairs(
    fingerprints: DataFrame,
    params: NearDuplicateParams,
    ctx: StageContext,
    known: DataFrame | None = None,
) -> DataFrame:
    """All pairs of hashes within the radius, by block-permuted keys: recall 1 by construction.

    Images of one hash are a star around the smallest image_id, which also stands for them in the
    pairs with other hashes. Flat images match nothing.

    Cost: (images) x (tables) x 8 bytes shuffled, then image_id and hash once, then the pairs. A
    task holds about ``task_rows`` rows, or the pairs of as many, however many images share a hash:
    a million copies of one are streamed.

    Args:
        fingerprints: image_id, phash, is_flat.
        params: ``max_hamming``, ``task_rows``.
        ctx: of the stage.
        known: ``low, high, distance``, all pairs of hashes within the radius (``new_hash_pairs``),
            which are then not searched; None to search.

    Returns:
        image_id_a < image_id_b, tier, distance (bits); each pair once.
    """
    num_images = ctx.count(fingerprints)
    num_routes = max(1, math.ceil(num_images / params.task_rows))
    name_routes = _NAME_SHARE * num_routes
    columns = ("image_id", "phash", "is_flat")
    blocks = ctx.scan(fingerprints, columns, _pack_names(name_routes), PACKED_DDL)
    if known is not None:
        blocks = blocks.unionByName(known.mapInArrow(_pack_pairs(name_routes), PACKED_DDL))
    elif params.max_hamming > 0:
        plan = plan_tables(num_images, params.max_hamming)
        logger.info("near_duplicate_tables", extra={"fields": {"plan": plan.explanation}})
        keyed = ctx.scan(fingerprints, columns[1:], _pack_hashes(plan, num_routes), PACKED_DDL)
        found = shuffle_packed(keyed, plan.num_tables * num_routes).mapInArrow(
            _search(plan, num_routes, name_routes), PACKED_DDL
        )
        blocks = blocks.unionByName(found)
    named = shuffle_packed(blocks, name_routes).mapInArrow(_name(num_routes), PACKED_DDL)
    whole = shuffle_packed(named, num_routes).mapInArrow(_join_ends, _WHOLE_DDL)
    return ordered_pair(whole, F.lit("perceptual"))


def _pack_hashes(plan: TablePlan, num_routes: int) -> ArrowMap:
    """Distinct hashes of a block, once a table."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in in_blocks(_not_flat(batches), HASH_BLOCK):
            hashes = np.sort(_unsigned(block.column("phash")))
            hashes = hashes[np.r_[True, hashes[1:] != hashes[:-1]]]
            rows = pa.RecordBatch.from_arrays([pa.array(hashes.view(np.int64))], ["phash"])
            for table in range(plan.num_tables):
                routes = table_routes(hashes, plan, table, num_routes)
                yield pack(rows, routes, first_route=table * num_routes)

    return run


def _search(plan: TablePlan, num_routes: int, name_routes: int) -> ArrowMap:
    """Pairs of the hashes of a route, packed for the tasks that name their ends."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for route, blocks in groupby(unpack(batches), key=lambda block: block[0]):
            hashes = np.concatenate([_unsigned(rows["phash"]) for _, _, rows in blocks])
            yield from _pair_blocks(near_hashes(hashes, plan, route // num_routes), name_routes)

    return run


def _pack_pairs(name_routes: int) -> ArrowMap:
    """Known pairs of hashes, packed as those that are found."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            low, high = _unsigned(batch.column("low")), _unsigned(batch.column("high"))
            distance = batch.column("distance").to_numpy().astype(np.uint8)
            yield from _pair_blocks(NearHashes(low, high, distance), name_routes)

    return run


def _pair_blocks(found: NearHashes, name_routes: int) -> Iterator[pa.RecordBatch]:
    """Each pair for the task of its low end and for that of its high one."""
    if not len(found.low):
        return
    for is_high, ends in enumerate((found.low, found.high)):
        columns = [
            pa.array(found.low.view(np.int64)),
            pa.array(found.high.view(np.int64)),
            pa.array(found.distance),
            pa.array(np.full(len(ends), bool(is_high))),
        ]
        rows = pa.RecordBatch.from_arrays(columns, ["low", "high", "distance", "is_high"])
        yield pack(rows, _name_routes(ends, name_routes), kind=_PAIR)


def _pack_names(num_routes: int) -> ArrowMap:
    """The first image of each hash of a block, and its further images apart."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in in_blocks(_not_flat(batches), NAME_BLOCK):
            hashes = _unsigned(block.column("phash"))
            routes = _name_routes(hashes, num_routes)
            split = split_firsts(hashes, block.column("image_id"))
            for kind, rows in ((_NAME, split.firsts), (_COPY, split.others)):
                if len(rows):
                    yield pack(block.take(pa.array(rows)), routes[rows], kind=kind)

    return run


class _Names(NamedTuple):
    """Smallest image_id of each hash of a route: uint64 (n,) ascending, and strings."""

    hashes: NDArray[np.uint64]
    ids: pa.Array

    def of(self, hashes: NDArray[np.uint64]) -> pa.Array:
        """Names of hashes that are there."""
        return self.ids.take(pa.array(np.searchsorted(self.hashes, hashes)))


def _name(num_routes: int) -> ArrowMap:
    """Pairs with the name of that end which a route knows, and stars, packed."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, of_route in groupby(unpack(batches), key=lambda block: block[0]):
            names: _Names | None = None
            for kind, blocks in groupby(of_route, key=lambda block: block[1]):
                tables = (rows for _, _, rows in blocks)
                if kind == _NAME:
                    rows = pa.concat_tables(tables).combine_chunks()
                    hashes, ids = _unsigned(rows["phash"]), rows["image_id"].combine_chunks()
                    split = split_firsts(hashes, ids)
                    names = _Names(hashes[split.firsts], ids.take(pa.array(split.firsts)))
                    yield from _star(names, rows.take(pa.array(split.others)), num_routes)
                    continue
                assert names is not None  # every hash has a first image in some block
                give = _half_pairs if kind == _PAIR else _star
                for rows in tables:
                    yield from give(names, rows, num_routes)

    return run


def _half_pairs(names: _Names, rows: pa.Table, num_routes: int) -> Iterator[pa.RecordBatch]:
    """Pairs with the name of their low end, or of their high one, to where both meet."""
    is_high = rows["is_high"].to_numpy()
    for kind, which, side in ((_LOW, ~is_high, "low"), (_HIGH, is_high, "high")):
        if which.any():
            part = rows.filter(pa.array(which)).combine_chunks()
            low, high = (_unsigned(part[name]) for name in ("low", "high"))
            columns = [part[name].combine_chunks() for name in ("low", "high", "distance")]
            half = pa.RecordBatch.from_arrays([*columns, names.of(_unsigned(part[side]))], _HALF)
            yield pack(half, _name_routes(low ^ high, num_routes), kind=kind)


def _star(names: _Names, rows: pa.Table, num_routes: int) -> Iterator[pa.RecordBatch]:
    """Each row linked to the first image of its hash; any task may pass it on."""
    if len(rows):
        first = names.of(_unsigned(rows["phash"]))
        # A copy is the first of its own block, not of all: it comes out as a name and a star.
        zero = pa.array(np.zeros(len(rows), np.float32))
        whole = pa.table([first, rows["image_id"], zero], schema=_WHOLE).combine_chunks()
        for batch in whole.to_batches():
            yield pack(batch, np.arange(batch.num_rows) % num_routes, kind=_STAR)


def _join_ends(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Whole pairs: columns of ``_WHOLE``."""
    for _, of_route in groupby(unpack(batches), key=lambda block: block[0]):
        halves: dict[int, pa.Table] = {}
        for kind, blocks in groupby(of_route, key=lambda block: block[1]):
            tables = (rows for _, _, rows in blocks)
            if kind == _STAR:
                for rows in tables:
                    yield from rows.to_batches()
            else:
                halves[kind] = _by_pair(pa.concat_tables(tables))
        if halves:
            low, high = halves[_LOW], halves[_HIGH]
            # A pair is found by one table alone, so either side has it once.
            assert low["low"].equals(high["low"])
            assert low["high"].equals(high["high"])
            columns = [low["name"], high["name"], low["distance"].cast(pa.float32())]
            yield from pa.table(columns, schema=_WHOLE).to_batches()


def _by_pair(halves: pa.Table) -> pa.Table:
    order = np.lexsort([halves[name].to_numpy() for name in ("high", "low")])
    return halves.take(pa.array(order)).combine_chunks()


def _not_flat(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.filter(pc.invert(batch.column("is_flat"))).drop_columns(["is_flat"])


def _name_routes(hashes: NDArray[np.uint64], num_routes: int) -> NDArray[np.int64]:
    spread = hash_ints(hashes.view(np.int64), 0, "perceptual_names")
    return np.asarray(spread % np.uint64(num_routes), np.int64)


def _unsigned(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    return np.asarray(column.to_numpy()).view(np.uint64)

"""Names of pairs of hashes over the turns, by a packed shuffle (SPEC N2, N3, N7).

Images and pairs of hashes go to the task of their hash. The first image of a hash stands for it;
images of one upright hash are pairs of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.collapse import split_firsts
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.row_checks import one_array
from pipeline.stages.packed import pack, unpack
from pipeline.stages.stage import ArrowMap

U64 = NDArray[np.uint64]

UPRIGHT, TURNED, PAIR, COPY = 0, 1, 2, 3
"""Kinds of blocks, in the order in which a task needs them: first images of upright hashes and of
turned ones, pairs of hashes, further images of upright hashes."""
NAMED_DDL = "left bigint, right bigint, is_turned boolean, distance float, one string, two string"
_NAMED = pa.schema(
    [
        ("left", pa.int64()),
        ("right", pa.int64()),
        ("is_turned", pa.bool_()),
        ("distance", pa.float32()),
        ("one", pa.string()),
        ("two", pa.string()),
    ]
)


def pack_names(num_routes: int) -> ArrowMap:
    """First image of each hash of a block, upright with their number, and further images apart."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for ids, hashes in hashed_blocks(batches):
            upright = np.ascontiguousarray(hashes[:, 0])
            split = split_firsts(upright, ids)
            _, counts = np.unique(upright, return_counts=True)
            rows = _names_of(upright, ids, split.firsts).append_column("num", pa.array(counts))
            yield from _routed(rows, UPRIGHT, num_routes)
            yield from _routed(_names_of(upright, ids, split.others), COPY, num_routes)
            others = other_hashes(hashes)
            again = ids.take(pa.array(others.rows))
            firsts = split_firsts(others.hashes, again).firsts
            yield from _routed(_names_of(others.hashes, again, firsts), TURNED, num_routes)

    return run


def _names_of(hashes: U64, ids: pa.Array, rows: NDArray[np.int64]) -> pa.RecordBatch:
    columns = [pa.array(hashes[rows].view(np.int64)), ids.take(pa.array(rows))]
    return pa.RecordBatch.from_arrays(columns, ["hash", "image_id"])


def _routed(rows: pa.RecordBatch, kind: int, num_routes: int) -> Iterator[pa.RecordBatch]:
    if rows.num_rows:
        yield pack(rows, routes_of(unsigned(rows.column("hash")), num_routes), kind=kind)


class _Names(NamedTuple):
    """First image of each hash of a route: uint64 (n,) ascending, strings, images int64 (n,)."""

    hashes: U64
    ids: pa.Array
    num: NDArray[np.int64]

    def of(self, hashes: U64) -> pa.Array:
        """Names of hashes that are there."""
        return self.ids.take(pa.array(np.searchsorted(self.hashes, hashes)))


def name_pairs(max_candidates: int) -> ArrowMap:
    """Pairs with the end that a route knows, and those of its images of one hash."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, of_route in groupby(unpack(batches), key=lambda block: block[0]):
            yield from _name_route(of_route, max_candidates)

    return run


def _name_route(
    blocks: Iterable[tuple[int, int, pa.Table]], max_candidates: int
) -> Iterator[pa.RecordBatch]:
    """Columns of ``_NAMED``; of a pair of different hashes one name is null.

    Images of a hash that many have are a star, streamed; those of few are held and paired.
    """
    names: dict[int, _Names] = {}
    few: list[pa.Table] = []
    for kind, of_kind in groupby(blocks, key=lambda block: block[1]):
        tables: Iterator[pa.Table] = (rows for _, _, rows in of_kind)
        if kind in {UPRIGHT, TURNED}:
            rows = pa.concat_tables(tables).combine_chunks()
            names[kind] = _merged(rows)
            tables = iter([rows] if kind == UPRIGHT else [])
        for rows in tables:
            if kind == PAIR:
                yield from _half_pairs(names, rows)
                continue
            upright = names[UPRIGHT]
            num = upright.num[np.searchsorted(upright.hashes, unsigned(rows["hash"]))]
            few.append(rows.filter(pa.array((num > 1) & (num <= max_candidates + 1))))
            yield from _star(upright, rows.filter(pa.array(num > max_candidates + 1)))
    if few:
        columns = ["hash", "image_id"]
        yield from _all_pairs(pa.concat_tables([rows.select(columns) for rows in few]))


def _merged(rows: pa.Table) -> _Names:
    """First images of all blocks; each block has a hash once."""
    hashes, ids = unsigned(rows["hash"]), one_array(rows["image_id"])
    firsts = split_firsts(hashes, ids).firsts
    known = hashes[firsts]
    num = np.zeros(len(known), np.int64)
    if "num" in rows.column_names:
        np.add.at(num, np.searchsorted(known, hashes), rows["num"].to_numpy())
    return _Names(known, ids.take(pa.array(firsts)), num)


def _half_pairs(names: dict[int, _Names], rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Pairs with the name of their left end, or of their right one."""
    is_right, is_turned = (rows[name].to_numpy() for name in ("is_right", "is_turned"))
    ways = (
        (is_right, "right", UPRIGHT),
        (~is_right & ~is_turned, "left", UPRIGHT),
        (~is_right & is_turned, "left", TURNED),
    )
    for which, side, kind in ways:
        if which.any():
            part = rows.filter(pa.array(which))
            ids = names[kind].of(unsigned(part[side]))
            none = pa.nulls(len(ids), pa.string())
            ends = (none, ids) if side == "right" else (ids, none)
            yield from _named(part["left"], part["right"], part["is_turned"], *ends)


def _star(names: _Names, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Each row linked to the first image of its hash."""
    first = names.of(unsigned(rows["hash"]))
    other = pc.not_equal(first, one_array(rows["image_id"]))
    rows, first = rows.filter(other), first.filter(other)
    yield from _same_hash(rows["hash"], first, one_array(rows["image_id"]))


def _all_pairs(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """All pairs of images of one hash."""
    rows = rows.sort_by([("hash", "ascending"), ("image_id", "ascending")])
    hashes, ids = rows["hash"].to_numpy(), one_array(rows["image_id"])
    step, same = 1, np.arange(len(hashes))
    while len(same):
        same = same[same < len(hashes) - step]
        same = same[hashes[same] == hashes[same + step]]
        ends = (ids.take(pa.array(at)) for at in (same, same + step))
        yield from _same_hash(pa.array(hashes[same]), *ends)
        step += 1


def _same_hash(
    hashes: pa.Array | pa.ChunkedArray, one: pa.Array, two: pa.Array
) -> Iterator[pa.RecordBatch]:
    yield from _named(hashes, hashes, pa.array(np.zeros(len(one), bool)), one, two)


def _named(
    left: pa.ChunkedArray,
    right: pa.ChunkedArray,
    is_turned: pa.ChunkedArray,
    one: pa.Array,
    two: pa.Array,
) -> Iterator[pa.RecordBatch]:
    bits = np.bitwise_count(unsigned(left) ^ unsigned(right)).astype(np.float32)
    yield from pa.table([left, right, is_turned, pa.array(bits), one, two], _NAMED).to_batches()


class Others(NamedTuple):
    """Hashes beside the upright ones: uint64 (m,), and int64 (m,) whose they are."""

    hashes: U64
    rows: NDArray[np.int64]


def other_hashes(hashes: U64) -> Others:
    """All but the upright hashes, none twice where there is no frame.

    Args:
        hashes: uint64 (n, 2 t), t of the whole pictures and t of what their frames enclose.
    """
    turns = hashes.shape[1] // 2
    whole, inside = hashes[:, :turns], hashes[:, turns:]
    framed = np.flatnonzero((inside != whole).any(axis=1))
    rows = np.r_[np.repeat(np.arange(len(hashes)), turns - 1), np.repeat(framed, turns)]
    return Others(np.r_[whole[:, 1:].ravel(), inside[framed].ravel()], rows)


def hashed_blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.Array, U64]]:
    """Names and hashes (n, 2 turns) of each block of ``_hash_turns``."""
    for _, _, rows in unpack(batches):
        values = unsigned(one_array(rows["hashes"]).flatten())
        yield one_array(rows["image_id"]), values.reshape(rows.num_rows, -1)


def routes_of(hashes: U64, num_routes: int) -> NDArray[np.int64]:
    spread = hash_ints(hashes.view(np.int64), 0, "candidate_names")
    return np.asarray(spread % np.uint64(num_routes), np.int64)


def unsigned(column: pa.Array | pa.ChunkedArray) -> U64:
    return np.asarray(column.to_numpy()).view(np.uint64)

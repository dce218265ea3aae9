"""Pairs over the turns by brute force, for all layouts of tasks and sizes of blocks; no Spark."""

from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest

from pipeline.kernels.block_keys import plan_tables
from pipeline.stages import turned_names, turned_pairs
from pipeline.stages.packed import pack, unpack

RADIUS, MOST = 3, 4
ROUTES = 5


def corpus(num_turns, seed=3):
    """Names and hashes (n, turns): some near, some equal, hashes that few and that many have."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (80, num_turns), dtype=np.uint64)
    hashes[20:50, 0] = hashes[:30, -1]  # upright is another's turn, or its own where there is one
    for row in range(20, 50):
        for bit in rng.choice(64, row % 6, replace=False):
            hashes[row, 0] ^= np.uint64(1 << int(bit))
    hashes[50:55, 0] = hashes[3, 0]
    hashes[56:60, 0] = hashes[4, 0]
    hashes[61:63] = hashes[5]
    hashes[64, -1] = hashes[64, 0]  # a picture and its own mirror image
    inside = hashes.copy()
    inside[70:78] = rng.integers(0, 2**64, (8, num_turns), dtype=np.uint64)  # of frames
    inside[70:78, -1] = hashes[10:18, 0] ^ np.uint64(5)
    names = [f"ü{i:02d}" for i in rng.permutation(80)]
    return names, np.concatenate([hashes, inside], axis=1)


def shuffled(batches):
    """What a packed shuffle does: blocks by route and kind, otherwise in any order."""
    rows = pa.concat_batches(batches)
    by = [("route", "ascending"), ("kind", "ascending"), ("block", "descending")]
    return [rows.take(pa.compute.sort_indices(rows, sort_keys=by))]


def searched(names, hashes, task_rows, block):
    """Named rows, of pairs of hashes (a name each) and of images of one hash (both names)."""
    n, turns = hashes.shape
    plan = plan_tables(n, RADIUS)
    layout = turned_pairs._Layout.of(plan, n * turns, task_rows)
    packed = []
    for start in range(0, n, block):
        part = hashes[start : start + block]
        flat = pa.array(part.ravel().view(np.int64))
        lists = pa.FixedSizeListArray.from_arrays(flat, turns)
        rows = pa.RecordBatch.from_arrays(
            [pa.array(names[start : start + block]), lists], ["image_id", "hashes"]
        )
        packed.append(pack(rows, np.zeros(len(part), np.int64)))
    keyed = list(turned_pairs._pack_hashes(plan, layout)(packed))
    assert max(route for route, _, _ in unpack(keyed)) < layout.num_tasks
    found = list(turned_pairs._search(plan, layout, ROUTES)(shuffled(keyed)))
    blocks = [*turned_names.pack_names(ROUTES)(packed), *found]
    named = list(turned_names.name_pairs(MOST)(shuffled(blocks)))
    return pa.Table.from_batches(named).to_pylist()


def merged(rows):
    """Pairs of images as the stage makes them of named halves, a set."""

    def key(row):
        own = (row["one"], row["two"]) if row["one"] and row["two"] else ("", "")
        return row["left"], row["right"], row["is_turned"], own

    found = {}
    for _, same in groupby(sorted(rows, key=key), key=key):
        halves = list(same)
        one, two = (max(row[end] or "" for row in halves) for end in ("one", "two"))
        assert one
        assert two
        if one != two:
            pair = (min(one, two), max(one, two))
            found.setdefault(pair, set()).add(halves[0]["distance"])
    return {pair: min(bits) for pair, bits in found.items()}


def slow(names, hashes):
    """The same pair by pair."""
    found = {}

    def add(a, b, bits):
        if a != b:
            pair = (min(a, b), max(a, b))
            found[pair] = min(found.get(pair, 64), bits)

    upright, turned = {}, {}
    for name, row in zip(names, hashes.tolist(), strict=True):
        upright.setdefault(row[0], []).append(name)
        whole, inside = row[: len(row) // 2], row[len(row) // 2 :]
        for value in whole[1:] + (inside if inside != whole else []):
            turned.setdefault(value, []).append(name)
    for value, same in upright.items():
        few = len(same) <= MOST + 1
        for a in same if few else [min(same)]:
            for b in same:
                add(a, b, 0)
        for other, again in [*upright.items(), *turned.items()]:
            if (bits := (value ^ other).bit_count()) <= RADIUS:
                add(min(same), min(again), bits)
    return found


@pytest.mark.parametrize("num_turns", [8, 1])
@pytest.mark.parametrize(("task_rows", "block"), [(10**6, 80), (1500, 7), (60, 33), (40, 1)])
def test_pairs_equal_brute_force_whatever_the_tasks_and_blocks(num_turns, task_rows, block):
    names, hashes = corpus(num_turns)
    expected = slow(names, hashes)
    assert len(expected) > 20
    rows = searched(names, hashes, task_rows, block)
    assert merged(rows) == expected


def test_a_hash_that_many_have_is_a_star_and_one_that_few_have_all_pairs():
    names, hashes = corpus(8)
    rows = searched(names, hashes, 10**6, 9)
    whole = [row for row in rows if row["one"] and row["two"]]
    pairs = {(row["one"], row["two"]) for row in whole}
    assert len(whole) == len(pairs)
    many = {names[i] for i in (3, *range(50, 55))}
    few = {names[i] for i in (4, *range(56, 60))}
    first = min(many)
    assert {p for p in pairs if set(p) <= many} == {(first, i) for i in many - {first}}
    assert {p for p in pairs if set(p) <= few} == {(a, b) for a in few for b in few if a < b}


@pytest.mark.parametrize(
    ("num_hashes", "task_rows", "layout"),
    [(0, 100, (1, 7, 1)), (40, 100, (1, 2, 4)), (101, 100, (2, 1, 14)), (1000, 100, (10, 1, 70))],
)
def test_tasks_share_a_table_or_tables_a_task(num_hashes, task_rows, layout):
    plan = plan_tables(80, 6)
    assert plan.num_tables == 7
    found = turned_pairs._Layout.of(plan, num_hashes, task_rows)
    assert found == layout
    tasks = [found.first_task(t) + r for t in range(7) for r in range(found.num_routes)]
    assert sorted(set(tasks)) == list(range(found.num_tasks))

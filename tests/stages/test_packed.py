"""Packed shuffles: every record arrives once, at its route, kinds in order."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages.packed import PACKED_DDL, in_blocks, pack, shuffle_packed, unpack


def records(values):
    names = [f"é{v}" for v in values]
    return pa.RecordBatch.from_pydict(
        {"value": pa.array(values, pa.int64()), "name": pa.array(names, pa.string())}
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 3))
def test_unpacking_undoes_packing(routes, first):
    rows = records(list(range(len(routes))))
    packed = pack(rows, np.array(routes), first_route=first, kind=2)
    assert packed.column("route").to_pylist() == sorted({r + first for r in routes})
    seen = []
    for route, kind, part in unpack([packed]):
        assert kind == 2
        assert part["name"].to_pylist() == [f"é{v}" for v in part["value"].to_pylist()]
        seen += [(route - first, value) for value in part["value"].to_pylist()]
    assert seen == sorted((route, value) for value, route in enumerate(routes))


def test_more_routes_than_sixteen_bits_hold():
    routes = np.array([70_000, 5, 70_000, 4_464])  # 70,000 is 4,464 in sixteen bits
    packed = pack(records([1, 2, 3, 4]), routes)
    found = {route: part["value"].to_pylist() for route, _, part in unpack([packed])}
    assert found == {5: [2], 4_464: [4], 70_000: [1, 3]}


def test_blocks_are_joined_to_their_size():
    batches = [records([1, 2]), records([]), records([3]), records([4, 5, 6, 7]), records([8])]
    sizes = [len(block) for block in in_blocks(batches, 3)]
    assert sizes == [3, 4, 1]
    assert list(in_blocks([records([])], 3)) == []


def test_a_task_gets_whole_routes_by_kind(spark):
    def packed(batches):
        for batch in batches:
            values = batch.column("id").to_numpy()
            rows = pa.RecordBatch.from_pydict({"value": values})
            for kind in (1, 0):
                chosen = values % 2 == kind
                yield pack(rows.filter(pa.array(chosen)), values[chosen] % 5, kind=kind)

    def arrived(batches):
        for route, kind, rows in unpack(batches):
            text = ",".join(map(str, sorted(rows["value"].to_pylist())))
            yield pa.RecordBatch.from_pydict({"r": [route], "k": [kind], "v": [text]})

    blocks = spark.range(0, 40, numPartitions=3).mapInArrow(packed, PACKED_DDL)
    per_task = (
        shuffle_packed(blocks, 5).mapInArrow(arrived, "r long, k long, v string").rdd.glom()
    ).collect()
    assert len(per_task) == 5
    for route, task in enumerate(per_task):
        assert {row.r for row in task} == {route}
        kinds = [row.k for row in task]
        assert kinds == sorted(kinds)
        values = sorted(int(v) for row in task for v in row.v.split(","))
        assert values == list(range(route, 40, 5))

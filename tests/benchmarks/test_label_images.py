"""The benchmark's own comparison sees every kind of difference, and its images are as drawn."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.bench_label_images import num_differing, row_hashes
from benchmarks.label_world import make_world

ROWS = [("a", [1, 2], [[5], [6, 7]]), ("b", None, None), ("c", [1], [[5]])]
TYPES = (pa.string(), pa.list_(pa.int32()), pa.list_(pa.list_(pa.int32())))


def hashes(rows, types=TYPES):
    names = ("image_id", "cluster_ids", "label_terms")
    columns = zip(*rows, strict=True)
    arrays = [pa.array(list(c), t) for c, t in zip(columns, types, strict=True)]
    return row_hashes(pa.table(dict(zip(names, arrays, strict=True))))


def test_order_of_rows_and_width_of_numbers_do_not_matter():
    wide = (pa.string(), pa.list_(pa.int64()), pa.large_list(pa.large_list(pa.int64())))
    assert num_differing(hashes(ROWS), hashes(ROWS[::-1], wide)) == 0
    alone = row_hashes(pa.table({"image_id": ["b"]}))
    empty = hashes([("b", [], [])])
    assert num_differing(alone, hashes(ROWS[1:2])) == num_differing(alone, empty) == 0


@pytest.mark.parametrize(
    "other",
    [
        ("a", [2, 1], [[5], [6, 7]]),
        ("a", [1, 2], [[6, 7], [5]]),
        ("a", [1, 2], [[5], [7, 6]]),
        ("a", [1, 2], [[5, 6], [7]]),
        ("a", [1, 2], [[5], [6]]),
        ("a", [1], [[5], [6, 7]]),
        ("a", [1, 2], [[5], []]),
        ("A", [1, 2], [[5], [6, 7]]),
        ("a", None, None),
    ],
)
def test_a_difference_is_seen(other):
    assert num_differing(hashes(ROWS), hashes([other, *ROWS[1:]])) == 2


def test_a_missing_and_a_repeated_row_are_seen():
    assert num_differing(hashes(ROWS), hashes(ROWS[:2])) == 1
    assert num_differing(hashes(ROWS), hashes([*ROWS, ROWS[0]])) == 1


def test_the_world_has_its_densities(tmp_path):
    world = make_world(str(tmp_path), 20_000, 2, 1)
    tables = world.tables
    assert {n: tables[n].num_rows for n in ("images", "image_interests")} == {
        "images": 20_000,
        "image_interests": 20_000,
    }
    assert 19_600 < tables["selected_annotations"].num_rows < 19_950
    assert np.isclose(world.num_annotations / 20_000, 10, atol=0.4)
    assert np.isclose(tables["image_interests"].totals["l1_interests"] / 20_000, 1.6, atol=0.1)

"""Two versions of a bucket against a dictionary of each."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.runtime.row_changes import row_changes
from pipeline.stages.earlier import GONE, NEW, SAME


def batches(rows, rng, is_fixed=False):
    """Rows by key, cut at random, empty batches among them."""
    kind = pa.binary(2) if is_fixed else pa.binary()
    keys = sorted(rows)
    cuts = sorted(rng.integers(0, len(keys) + 1, rng.integers(0, 6)).tolist())
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(keys)], strict=True):
        ids = pa.array(keys[start:stop], pa.string())
        values = pa.array([rows[k] for k in keys[start:stop]], kind)
        found.append(pa.RecordBatch.from_arrays([ids, values], ["image_id", "embedding"]))
    return iter(found)


def slow_changes(now, then):
    found = [(k, v, SAME if then.get(k) == v and v is not None else NEW) for k, v in now.items()]
    same = {k for k, _, change in found if change == SAME}
    return sorted(
        [*found, *((k, v, GONE) for k, v in then.items() if k not in same)],
        key=lambda row: (row[0], row[2]),
    )


@pytest.mark.parametrize("seed", range(40))
def test_changes_equal_those_of_two_dictionaries(seed):
    rng = np.random.default_rng(seed)
    names = ["", *(f"{c}{n}" for c in "aé\U0001f600" for n in range(12))]  # by code points
    values = [b"xx", b"yy", b"zz", None]
    now, then = (
        {
            name: values[rng.integers(len(values) - (rng.random() < 0.8))]
            for name in names
            if rng.random() < share
        }
        for share in rng.choice([0, 0.3, 0.9, 1], 2)
    )
    found = [
        row
        for batch in row_changes(batches(now, rng, is_fixed=True), batches(then, rng))
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]
    assert sorted(found, key=lambda row: (row[0], row[2])) == slow_changes(now, then)
    # Batches follow each other by key, so that a kernel may work through them.
    for change in ((SAME, NEW), (GONE,)):
        keys = [row[0] for row in found if row[2] in change]
        assert keys == sorted(keys)

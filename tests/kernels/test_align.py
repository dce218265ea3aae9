"""Lining up by key, with and without the short way for equal keys."""

import pyarrow as pa
import pytest

from pipeline.kernels.align import positions_of, take_or_null


@pytest.mark.parametrize(
    ("wanted", "keys", "rows"),
    [
        (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
        (["a", "b", "c"], ["b", "a", "c"], [1, 0, 2]),
        (["a", "b"], ["a", "b", "c"], [0, 1]),
        (["a", "b", "c"], ["a", "c"], [0, -1, 1]),
        (["a", None], ["a", "b"], [0, -1]),
        ([], [], []),
    ],
)
def test_rows_and_values_of_keys(wanted, keys, rows):
    strings = pa.array(keys, pa.string())
    for given in (strings, pa.chunked_array([strings[:1], strings[1:]])):
        found = positions_of(pa.array(wanted, pa.string()), given)
        assert found.tolist() == rows
        values = take_or_null(given, found).to_pylist()
        assert values == [keys[r] if r >= 0 else None for r in rows]

"""Regrouping of sorted batches: no key cut in two, rows without a key never piled up."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages import arrow
from pipeline.stages.arrow import all_rows, whole_keys


def batches(*groups):
    return [pa.RecordBatch.from_pydict({"k": pa.array(g, pa.string())}) for g in groups]


def keys(tables):
    return [table["k"].to_pylist() for table in tables]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arrow, "MIN_ROWS", 3)


def test_by_hand():
    given = batches([None, None, None], [None, "a"], [], ["a", "b"], ["b", "b"], ["c"])
    assert keys(whole_keys(given, "k")) == [
        [None, None, None],  # a partition of nothing but nulls stays as it came
        [None, "a", "a"],
        ["b", "b", "b"],
        ["c"],
    ]
    assert keys(whole_keys(batches([], []), "k")) == []
    assert keys(all_rows(batches(["b"], ["a"]))) == [["b", "a"]]
    assert keys(all_rows([])) == []


def test_bytes_close_a_group_too(monkeypatch):
    monkeypatch.setattr(arrow, "MIN_ROWS", 1000)
    monkeypatch.setattr(arrow, "MIN_BYTES", 1)
    assert keys(whole_keys(batches(["a", "b"], ["b", "c"]), "k")) == [["a"], ["b", "b"], ["c"]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.lists(st.integers(0, 30), max_size=5))
def test_rows_stay_in_order_and_keys_whole(rows, cuts):
    rows = [None] * (len(rows) % 5) + sorted(rows)
    bounds = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    parts = [rows[a:b] for a, b in itertools.pairwise(bounds)]
    found = keys(whole_keys(batches(*parts), "k"))
    assert [k for group in found for k in group] == rows
    assert all(found)
    named = [{k for k in group if k is not None} for group in found]
    assert sum(map(len, named)) == len(set().union(*named))

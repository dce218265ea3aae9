"""Digests of many strings against the library, one by one."""

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.xxhash64 import digests


def one_by_one(strings, seed):
    return [xxhash.xxh64_intdigest((s or "").encode(), seed) for s in strings]


@pytest.mark.parametrize("seed", [0, 42, 2**64 - 1])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 7, 8, 12, 15, 31, 32, 33, 40, 63, 64, 100])
def test_every_kind_of_tail(length, seed):
    strings = [(chr(97 + i % 26) * length + "é")[:length] for i in range(100)]
    array = pa.array(strings)
    assert digests(array, seed).tolist() == one_by_one(strings, seed)
    assert digests(array[3:90], seed).tolist() == one_by_one(strings[3:90], seed)


def test_more_strings_than_a_block_of_two_lengths_and_few_of_a_third():
    strings = [f"image-{i}" for i in range(60_000)] + ["x"]
    chunks = pa.chunked_array([pa.array(strings[:7]), pa.array(strings[7:])])
    assert digests(chunks, 42).tolist() == one_by_one(strings, 42)


@given(st.lists(st.none() | st.text(max_size=70), max_size=100), st.integers(0, 2**64 - 1))
def test_any_text_and_nulls(strings, seed):
    array = pa.array(strings, pa.string())
    assert digests(array, seed).tolist() == one_by_one(strings, seed)
    assert digests(array.cast(pa.large_string()), seed).tolist() == one_by_one(strings, seed)


def test_bytes_under_a_null_do_not_count():
    whole = pa.array(["ab", "cd", "ef"])
    mask = pa.array([True, False, True]).buffers()[1]
    array = pa.StringArray.from_buffers(3, *whole.buffers()[1:], mask)
    assert array.to_pylist() == ["ab", None, "ef"]
    assert digests(array, 42).tolist() == one_by_one(["ab", None, "ef"], 42)

"""xxHash64 of many strings at once: numpy over all strings of one length.

Some three times faster than a call of the library for each string, with the same digests.

Source: Collet, xxHash specification, https://github.com/Cyan4973/xxHash (XXH64).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline.kernels.nested import one_chunk

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(p)
    for p in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)
_BLOCK = 16_384
"""Strings hashed together, so that their digests stay in the cache."""
_FEW = 64
"""Strings of one length below which the library, one by one, is faster."""


def digests(strings: pa.Array | pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """xxHash64 of each string's UTF-8 bytes; of a null that of the empty string.

    Args:
        strings: n strings.
        seed: start value, unsigned 64 bits.

    Returns:
        uint64 of shape (n,).
    """
    array = one_chunk(strings).cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    num, buffers = len(array), array.buffers()
    if num == 0:
        return np.zeros(0, np.uint64)
    bounds = np.frombuffer(buffers[1], np.int64)[array.offset : array.offset + num + 1]
    if bounds[0] == bounds[-1]:
        return np.full(num, xxhash.xxh64_intdigest(b"", seed), np.uint64)
    data = np.frombuffer(buffers[2], np.uint8)
    starts, lengths = bounds[:-1], np.diff(bounds)
    result = np.empty(num, np.uint64)
    if lengths.min() == lengths.max():
        for first in range(0, num, _BLOCK):
            piece = slice(first, min(first + _BLOCK, num))
            block = data[starts[piece.start] : bounds[piece.stop]]
            result[piece] = hash_rows(block.reshape(-1, lengths[0]), seed)
        return result
    order = np.argsort(lengths, kind="stable")
    cuts = np.flatnonzero(np.diff(lengths[order])) + 1
    for rows in np.split(order, cuts):
        length = int(lengths[rows[0]])
        if len(rows) < _FEW:
            for row in rows:
                text = data[starts[row] : starts[row] + length].tobytes()
                result[row] = xxhash.xxh64_intdigest(text, seed)
            continue
        for first in range(0, len(rows), _BLOCK):
            some = rows[first : first + _BLOCK]
            result[some] = hash_rows(data[starts[some][:, None] + np.arange(length)], seed)
    return result


def hash_rows(rows: NDArray[np.uint8], seed: int) -> NDArray[np.uint64]:
    """xxHash64 of each row of bytes.

    Args:
        rows: uint8 (n, length).
        seed: start value, unsigned 64 bits.

    Returns:
        uint64 of shape (n,).
    """
    num, length = rows.shape
    words, rest = divmod(length, 8)
    lanes = np.ascontiguousarray(rows[:, : 8 * words]).view("<u8").astype(np.uint64, copy=False)
    with np.errstate(over="ignore"):
        state, done = _stripes(lanes, np.uint64(seed), num)
        state = state + np.uint64(length)
        for i in range(done, words):
            state = _rotated(state ^ _round(np.uint64(0), lanes[:, i]), 27) * _P1 + _P4
        at = 8 * words
        if rest >= 4:
            half = np.ascontiguousarray(rows[:, at : at + 4]).view("<u4")[:, 0].astype(np.uint64)
            state = _rotated(state ^ (half * _P1), 23) * _P2 + _P3
            at += 4
        for i in range(at, length):
            state = _rotated(state ^ (rows[:, i].astype(np.uint64) * _P5), 11) * _P1
        state = (state ^ (state >> np.uint64(33))) * _P2
        state = (state ^ (state >> np.uint64(29))) * _P3
        return np.asarray(state ^ (state >> np.uint64(32)), np.uint64)


def _stripes(
    lanes: NDArray[np.uint64], seed: np.uint64, num: int
) -> tuple[NDArray[np.uint64], int]:
    """State after the whole stripes of four words, and the words they took."""
    done = lanes.shape[1] // 4 * 4
    if not done:
        return np.full(num, seed + _P5, np.uint64), 0
    starts = (seed + _P1 + _P2, seed + _P2, seed, seed - _P1)
    sums = [np.full(num, start, np.uint64) for start in starts]
    for i in range(done):
        sums[i % 4] = _round(sums[i % 4], lanes[:, i])
    state = np.zeros(num, np.uint64)
    for value, turn in zip(sums, (1, 7, 12, 18), strict=True):
        state += _rotated(value, turn)
    for value in sums:
        state = (state ^ _round(np.uint64(0), value)) * _P1 + _P4
    return state, done


def _round(state: NDArray[np.uint64] | np.uint64, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _rotated(state + words * _P2, 31) * _P1


def _rotated(values: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return np.asarray((values << np.uint64(bits)) | (values >> np.uint64(64 - bits)), np.uint64)

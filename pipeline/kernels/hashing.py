"""Chance as a pure function of (seed, stream, id).

The string hash equals Spark's ``xxhash64(CAST(seed AS BIGINT), stream, id)``, so that a relational
stage and a kernel draw the same number for the same image. A *stream* names what the number is
for: two draws for one image in different streams are independent.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline.kernels.xxhash64 import digests

_SPARK_SEED = 42
"""Start value of Spark's own xxhash64 expression."""
_BLOCK = 1 << 14
"""Integers hashed at once: they and their scratch fit a second-level cache."""


def stream_seed(seed: int, stream: str) -> int:
    """State of the chained hash after (seed, stream), unsigned 64 bits."""
    state = xxhash.xxh64_intdigest(seed.to_bytes(8, "little", signed=True), _SPARK_SEED)
    return xxhash.xxh64_intdigest(stream.encode(), state)


def hash64(
    ids: Iterable[str] | pa.Array | pa.ChunkedArray, seed: int, stream: str
) -> NDArray[np.uint64]:
    """Seeded 64-bit hash of each string id.

    Args:
        ids: n strings without nulls, hashed as UTF-8.
        seed: any signed 64-bit integer.
        stream: what the draw is for.

    Returns:
        uint64 of shape (n,).
    """
    state = stream_seed(seed, stream)
    return _digests(ids, state)


def bucket_of(
    ids: Iterable[str] | pa.Array | pa.ChunkedArray, num_buckets: int
) -> NDArray[np.int32]:
    """Bucket of each id, the layout of bucketed tables: Spark's ``pmod(xxhash64(id), n)``.

    Returns:
        int32 of shape (n,), in [0, num_buckets).
    """
    return np.asarray(_digests(ids, _SPARK_SEED).view(np.int64) % num_buckets, dtype=np.int32)


def _digests(ids: Iterable[str] | pa.Array | pa.ChunkedArray, state: int) -> NDArray[np.uint64]:
    is_arrow = isinstance(ids, pa.Array | pa.ChunkedArray)
    return digests(ids if is_arrow else pa.array(ids, pa.string()), state)


def hash_ints(values: NDArray[np.integer], seed: int, stream: str) -> NDArray[np.uint64]:
    """Seeded 64-bit hash of each integer (splitmix64 finaliser over value and stream).

    Args:
        values: integers of any shape.
        seed: any signed 64-bit integer.
        stream: what the draw is for.

    Returns:
        uint64 of the same shape.

    Source: Steele, Lea, Flood 2014, splitmix64.
    """
    # In place and in blocks: fresh pages, and caches missed, cost as much as the arithmetic.
    hashes = np.array(values, np.int64, order="C").view(np.uint64)
    flat, state = hashes.reshape(-1), np.uint64(stream_seed(seed, stream))
    scratch = np.empty(min(len(flat), _BLOCK), np.uint64)
    with np.errstate(over="ignore"):
        for first in range(0, len(flat), _BLOCK):
            z = flat[first : first + _BLOCK]
            shifted = scratch[: len(z)]
            z *= np.uint64(0x9E3779B97F4A7C15)
            z += state
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                z ^= np.right_shift(z, np.uint64(shift), out=shifted)
                z *= np.uint64(factor)
            z ^= np.right_shift(z, np.uint64(31), out=shifted)
    return hashes


def uniform(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Map hashes to float64 in [0, 1) by their top 53 bits."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53

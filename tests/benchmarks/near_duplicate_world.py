"""Hashes and vectors with planted near-duplicates, as the Parquet files that all systems read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.kernels.block_keys import plan_tables
from pipeline.kernels.vectors import from_matrix, l2_normalise, row_products

PLANTED_SHARE = 20
"""One row in so many has a planted partner."""
ROW_GROUP, NUM_FILES = 1 << 18, 8
_BLOCK, _NAMED = 1 << 17, 1 << 24
"""Rows that are drawn and named at once."""


def plant_hashes(path: str, count: int, radius: int, hot: int = 0) -> NDArray[np.int64]:
    """Write random hashes, some of them others' with 1 to ``radius`` bits flipped.

    Args:
        path: of the folder of files: image_id (a position), phash, is_flat.
        count: rows.
        radius: bits.
        hot: rows (the first) that share the key of the plan's middle table; what is left of their
            bits is random.

    Returns:
        int64 (n, 2), planted pairs of positions, ascending.
    """
    rng = np.random.default_rng(count + radius)
    hashes = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    if hot:
        plan = plan_tables(count, radius)
        mask = plan.masks[plan.num_tables // 2]
        hashes[:hot] = hashes[:hot] & ~mask | (hashes[0] & mask)
    num_pairs = count // PLANTED_SHARE
    flips = np.zeros(num_pairs, np.uint64)
    num_flips = rng.integers(1, radius + 1, num_pairs)
    for flip in range(radius):
        bit = np.uint64(1) << rng.integers(0, 64, num_pairs).astype(np.uint64)
        flips |= np.where(flip < num_flips, bit, np.uint64(0))
    hashes[-num_pairs:] = hashes[:num_pairs] ^ flips
    columns = {
        "image_id": _names(count),
        "phash": pa.array(hashes.view(np.int64)),
        "is_flat": pa.array(np.zeros(count, np.bool_)),
    }
    _write(pa.table(columns), path)
    first = np.arange(num_pairs)
    return np.stack([first, first + count - num_pairs], axis=1)


def plant_vectors(path: str, count: int, width: int, tau: float) -> NDArray[np.int64]:
    """Write clustered unit vectors, some of them others' with a cosine of ``tau`` to 1.

    A vector is its cluster's centre and as much noise; there are sqrt(count) clusters.

    Args:
        path: of the folder of files: image_id (a position), embedding.
        count: rows.
        width: of a vector.
        tau: least cosine of a planted pair.

    Returns:
        int64 (n, 2), planted pairs of positions, ascending.
    """
    rng = np.random.default_rng(count)
    centres = l2_normalise(rng.standard_normal((int(count**0.5), width), dtype=np.float32))
    x = np.empty((count, width), np.float32)
    for at in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - at)
        noise = rng.standard_normal((rows, width), dtype=np.float32) / np.float32(width**0.5)
        x[at : at + rows] = l2_normalise(centres[rng.integers(0, len(centres), rows)] + noise)
    num_pairs = count // PLANTED_SHARE
    base = x[:num_pairs].astype(np.float64)
    other = rng.standard_normal((num_pairs, width))
    other -= np.einsum("nd,nd->n", other, base)[:, None] * base
    other /= np.linalg.norm(other, axis=1)[:, None]
    cosine = rng.uniform(tau + 1e-4, 1, num_pairs)[:, None]
    x[-num_pairs:] = l2_normalise(cosine * base + np.sqrt(1 - cosine**2) * other)
    columns = {"image_id": _names(count), "embedding": from_matrix(x)}
    _write(pa.table(columns), path)
    first = np.arange(num_pairs)
    planted = np.stack([first, first + count - num_pairs], axis=1)
    assert row_products(x, x, planted[:, 0], planted[:, 1]).min() >= tau
    return planted


def pair_codes(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """One integer a pair, ascending."""
    return np.sort((pairs[:, 0] << 32) | pairs[:, 1])


def recall_of(found: NDArray[np.int64], planted: NDArray[np.int64]) -> float:
    """Share of the planted pairs that were found."""
    codes, wanted = pair_codes(found), pair_codes(planted)
    if not len(codes):
        return 0.0
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return float(np.mean(codes[at] == wanted))


def brute_force(hashes: NDArray[np.uint64], radius: int) -> NDArray[np.int64]:
    """All pairs within the radius by comparing all with all, int64 (n, 2), ascending."""
    found = []
    for at in range(0, len(hashes), 64):
        block = hashes[at : at + 64]
        near = np.flatnonzero(np.bitwise_count(block[:, None] ^ hashes[at:]) <= radius)
        one, two = np.divmod(near, len(hashes) - at)
        upper = one < two
        found.append(np.stack([one[upper], two[upper]], axis=1) + at)
    return np.concatenate(found)


def _write(rows: pa.Table, folder: str) -> None:
    """Rows in files of equal size, as the buckets of a table."""
    Path(folder).mkdir()
    size = -(-len(rows) // NUM_FILES)
    for number in range(NUM_FILES):
        path = f"{folder}/part-{number:05d}.parquet"
        part = rows.slice(number * size, size)
        pq.write_table(part, path, row_group_size=ROW_GROUP, use_dictionary=False)


def _names(count: int) -> pa.ChunkedArray:
    """Positions as identifiers whose order is that of the numbers."""
    width = len(str(count))
    numbers = (np.arange(at, min(at + _NAMED, count)) for at in range(0, count, _NAMED))
    texts = (pa.array(part).cast(pa.string()) for part in numbers)
    return pa.chunked_array([pa.compute.utf8_lpad(part, width, "0") for part in texts])

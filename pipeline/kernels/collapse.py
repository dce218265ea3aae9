"""Equal hashes as one row and its copies, so that hot keys cost linear time (N3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Firsts(NamedTuple):
    """Positions of rows by whether their id is the smallest of their hash. int64 each.

    Attributes:
        firsts: one a hash, by ascending hash.
        others: the rest, by ascending hash.
    """

    firsts: NDArray[np.int64]
    others: NDArray[np.int64]


def split_firsts(hashes: NDArray[np.uint64], ids: pa.Array | pa.ChunkedArray) -> Firsts:
    """Tell the row of smallest id of each hash from the others.

    Args:
        hashes: uint64 (n,).
        ids: n distinct ids without nulls; smallest by UTF-8 bytes or value.
    """
    order = np.argsort(hashes)
    ordered = hashes[order]
    repeats = ordered[1:] == ordered[:-1]
    is_shared = np.r_[False, repeats] | np.r_[repeats, False]
    if is_shared.any():
        shared = order[is_shared]
        rows = pa.table({"hash": hashes[shared], "id": ids.take(pa.array(shared))})
        by = [("hash", "ascending"), ("id", "ascending")]
        order[is_shared] = shared[pc.sort_indices(rows, sort_keys=by).to_numpy()]
    return Firsts(order[np.r_[True, ~repeats][: len(order)]], order[1:][repeats])

"""Equal hashes to one row and a star of links, so that hot keys cost linear time (N3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Collapsed(NamedTuple):
    """Distinct hashes with their smallest id, and a star for each hash with several.

    Attributes:
        hashes: uint64 (n,), ascending.
        ids: smallest id of each hash, the type that was given.
        star_left: the smallest id, once for each other member ...
        star_right: ... and that member.
    """

    hashes: NDArray[np.uint64]
    ids: pa.Array
    star_left: pa.Array
    star_right: pa.Array


def collapse_identical(hashes: NDArray[np.uint64], ids: pa.Array) -> Collapsed:
    """Replace rows of equal hash by one, linking the others to it: linear in hot keys.

    Args:
        hashes: uint64 (n,). Leave out flat pictures: their hashes say nothing.
        ids: n distinct ids without nulls, strings or integers; smallest by UTF-8 bytes or value.
    """
    by_id = pc.sort_indices(ids).to_numpy()
    order = by_id[np.argsort(hashes[by_id], kind="stable")]
    ordered = hashes[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    first_of_row = order[is_first][np.cumsum(is_first) - 1]
    return Collapsed(
        ordered[is_first],
        ids.take(pa.array(order[is_first])),
        ids.take(pa.array(first_of_row[~is_first])),
        ids.take(pa.array(order[~is_first])),
    )

"""A few members of every key, the lowest by a hash of the member alone.

Because the hash does not depend on the key, keys share members where they can: a few pictures then
illustrate many labels (coordinated sampling, Cohen and Kaplan 2009).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash64


class BottomK:
    """Collects the k lowest members of each key over batches, whatever their order.

    Memory: k members a key and one batch.

    Args:
        k: members a key keeps.
        seed: of the hash.
        stream: of the hash.
    """

    def __init__(self, k: int, seed: int, stream: str) -> None:
        self._k, self._seed, self._stream = k, seed, stream
        self._keys = np.zeros(0, np.int64)
        self._hashes = np.zeros(0, np.uint64)
        self._names = np.zeros(0, object)

    def add(
        self, ids: pa.Array | pa.ChunkedArray, rows: NDArray[np.integer], keys: NDArray[np.integer]
    ) -> None:
        """Take in a batch.

        Args:
            ids: n string identifiers.
            rows: (m,) position in ``ids`` of each membership.
            keys: (m,) its key; no (row, key) twice.
        """
        hashes = hash64(ids, self._seed, self._stream)[rows]
        few = _lowest(keys, hashes, self._k)
        names = np.asarray(ids.take(pa.array(rows[few])).to_pylist(), object)
        all_keys = np.concatenate([self._keys, keys[few]])
        all_hashes = np.concatenate([self._hashes, hashes[few]])
        all_names = np.concatenate([self._names, names])
        order = _lowest(all_keys, all_hashes, self._k)
        self._keys, self._hashes, self._names = all_keys[order], all_hashes[order], all_names[order]

    def members(self) -> dict[int, list[str]]:
        """Members of each key, lowest hash first."""
        found: dict[int, list[str]] = {}
        for key, name in zip(self._keys.tolist(), self._names.tolist(), strict=True):
            found.setdefault(key, []).append(name)
        return found


def _lowest(keys: NDArray[np.integer], hashes: NDArray[np.uint64], k: int) -> NDArray[np.int64]:
    """Positions of the k lowest hashes of each key, by key and hash."""
    order = np.lexsort((hashes, keys))
    by_key = keys[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = by_key[1:] != by_key[:-1]
    starts = np.flatnonzero(is_first)
    rank = np.arange(len(keys)) - starts[np.cumsum(is_first) - 1] if len(keys) else starts
    return np.asarray(order[rank < k], np.int64)


def shared_budget(
    members: dict[int, list[str]], order: list[int], limit: int
) -> dict[int, list[str]]:
    """Give every key its first member before any gets a second, until so many are in use.

    A member that another key already has costs nothing.

    Args:
        members: key -> members, best first.
        order: keys, those served first at the front.
        limit: different members in all.

    Returns:
        key -> its share; keys without any are left out.
    """
    used: set[str] = set()
    shares: dict[int, list[str]] = {}
    for turn in range(max(map(len, members.values()), default=0)):
        for key in order:
            mine = members.get(key, [])
            if turn < len(mine) and (mine[turn] in used or len(used) < limit):
                used.add(mine[turn])
                shares.setdefault(key, []).append(mine[turn])
    return shares

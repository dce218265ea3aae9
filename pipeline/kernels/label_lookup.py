"""Dictionary and cluster maps as flat arrays, broadcast to the pass over all images.

Source: SPEC M3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.nested import list_offsets, offsets_of, one_chunk

MAX_INTERESTS = 64
"""An image's interests are the bits of one uint64."""


@dataclass(frozen=True)
class LabelLookup:
    """Flat arrays over term_id, with one empty entry at the end for terms beyond them.

    Attributes:
        is_visual: bool (T + 1,), the visual dictionary.
        cluster_offsets: int32 (T + 2,), into ``clusters``.
        clusters: int32, cluster ids of each term, ascending.
        bit_of_cluster: uint64 (C,), the cluster's L1 interest as a bit set of one.
    """

    is_visual: NDArray[np.bool_]
    cluster_offsets: NDArray[np.int32]
    clusters: NDArray[np.int32]
    bit_of_cluster: NDArray[np.uint64]

    @classmethod
    def build(
        cls,
        visual_term_ids: NDArray[np.integer],
        term_ids: NDArray[np.integer],
        cluster_ids: NDArray[np.integer],
        interest_of_cluster: NDArray[np.integer],
    ) -> LabelLookup:
        """Flat arrays from rows in any order.

        Args:
            visual_term_ids: terms of the visual dictionary.
            term_ids: (m,) term of each row of the map from terms to clusters.
            cluster_ids: (m,) its cluster; no row twice.
            interest_of_cluster: (C,) index of the L1 interest of clusters 0 .. C - 1.

        Raises:
            ValueError: a cluster outside the array, an interest outside [0, 64), a repeated row.
        """
        terms, clusters = np.asarray(term_ids, np.int64), np.asarray(cluster_ids, np.int64)
        interest = np.asarray(interest_of_cluster, np.int64)
        if len(clusters) and not 0 <= clusters.min() <= clusters.max() < len(interest):
            raise ValueError(
                f"term_clusters: cluster_id {clusters.min()} to {clusters.max()}, expected in [0, "
                f"{len(interest)})."
            )
        if len(interest) and not 0 <= interest.min() <= interest.max() < MAX_INTERESTS:
            raise ValueError(f"clusters: interest index {interest.max()}, expected in [0, 64).")
        size = max((int(a.max()) + 1 for a in (visual_term_ids, terms) if len(a)), default=0)
        is_visual = np.zeros(size + 1, bool)
        is_visual[visual_term_ids] = True
        order = np.lexsort((clusters, terms))
        terms, clusters = terms[order], clusters[order]
        if np.any((terms[1:] == terms[:-1]) & (clusters[1:] == clusters[:-1])):
            raise ValueError("term_clusters: a repeated row, expected each pair once.")
        offsets = offsets_of(np.bincount(terms, minlength=size + 1)).astype(np.int32)
        bits = np.uint64(1) << interest.astype(np.uint64)
        return cls(is_visual, offsets, clusters.astype(np.int32), bits)

    def num_clusters(
        self, term_ids: NDArray[np.int32], use_dictionary: bool
    ) -> NDArray[np.integer]:
        """Clusters of each term, 0 for unknown terms.

        Args:
            term_ids: any integers.
            use_dictionary: -1 for terms that are not in the visual dictionary.
        """
        table, last = self._num_clusters[use_dictionary], len(self.is_visual) - 1
        if len(term_ids) and (term_ids.min() < 0 or term_ids.max() > last):
            term_ids = np.where((term_ids < 0) | (term_ids > last), last, term_ids)
        return table.take(term_ids)

    @cached_property
    def _num_clusters(self) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Clusters of each term without and with the dictionary; small, to stay in the cache."""
        num = np.diff(self.cluster_offsets)
        num = num.astype(np.min_scalar_type(-int(num.max()) - 1))
        return num, np.where(self.is_visual, num, num.dtype.type(-1))


def interest_bits(column: pa.Array | pa.ChunkedArray, interests: list[str]) -> NDArray[np.uint64]:
    """Bit set of each row of a list<string> column of interest names; 0 for null or empty.

    Args:
        column: n lists of names.
        interests: at most 64 names; bit i stands for interests[i].

    Raises:
        ValueError: a name that is not among them, or too many.
    """
    if len(interests) > MAX_INTERESTS:
        raise ValueError(f"taxonomy: {len(interests)} interests, expected at most 64.")
    array = one_chunk(column)
    names = array.flatten()
    index = pc.index_in(names, value_set=pa.array(interests, pa.string()))
    if index.null_count:
        stranger = names.filter(pc.is_null(index))[0].as_py()
        raise ValueError(
            f"image_interests.l1_interests: found {stranger!r}, expected one of the taxonomy's "
            f"{len(interests)} interests."
        )
    bits = np.uint64(1) << index.to_numpy(zero_copy_only=False).astype(np.uint64)
    offsets = list_offsets(array)
    result = np.zeros(len(array), np.uint64)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        result[filled] = np.bitwise_or.reduceat(bits, offsets[filled])
    return result

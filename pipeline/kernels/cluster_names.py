"""Readable description of clusters: medoid term, top terms, size, inertia.

Source: SPEC K2.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.kmeans import Clustering

DESCRIPTION_SCHEMA = pa.schema(
    [
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("size", pa.int32(), nullable=False),
        pa.field("medoid_term_id", pa.int32(), nullable=False),
        pa.field("top_term_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("inertia", pa.float64(), nullable=False),
    ]
)
"""Result of `describe_clusters`; cluster is the number inside the interest."""


def describe_clusters(
    clustering: Clustering, frequency: NDArray[np.integer], num_top_terms: int
) -> pa.Table:
    """One row a cluster.

    The medoid is the term nearest to the centroid; of terms at one distance the more frequent,
    then the lower id. Top terms go on in that order, so the medoid is the first of them.

    Args:
        clustering: result of `cluster_terms`.
        frequency: integer (n,), images with each term, rows as in ``clustering.term_ids``.
        num_top_terms: most top terms a cluster, >= 1.

    Returns:
        Table of ``DESCRIPTION_SCHEMA``, ascending by cluster.
    """
    ids, cluster, distance = clustering.term_ids, clustering.cluster, clustering.distance
    often = -np.asarray(frequency, np.int64)
    bounds = np.searchsorted(np.sort(cluster), np.arange(clustering.num_clusters + 1))
    near = ids[np.lexsort((ids, often, distance, cluster))]
    sizes = np.diff(bounds)
    kept = np.minimum(sizes, num_top_terms)
    position = np.arange(len(ids)) - np.repeat(bounds[:-1], sizes)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    top_terms = pa.ListArray.from_arrays(offsets, pa.array(near[position < num_top_terms]))
    return pa.Table.from_arrays(
        [
            pa.array(np.arange(clustering.num_clusters, dtype=np.int32)),
            pa.array(sizes.astype(np.int32)),
            pa.array(near[bounds[:-1]]),
            top_terms,
            pa.array(clustering.inertia),
        ],
        schema=DESCRIPTION_SCHEMA,
    )

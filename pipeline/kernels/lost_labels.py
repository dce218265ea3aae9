"""Labels that the restriction to an image's interests takes away, with the terms that gave them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.label_lookup import LabelLookup
from pipeline.kernels.labels import label_images
from pipeline.kernels.nested import list_offsets


class GivenLabels(NamedTuple):
    """Labels of n images before the restriction, one entry for each term that gives one.

    Attributes:
        rows: int64 (m,), image.
        clusters: int64 (m,).
        terms: int64 (m,).
        is_lost: bool (m,), the image is not of the cluster's interest.
    """

    rows: NDArray[np.int64]
    clusters: NDArray[np.int64]
    terms: NDArray[np.int64]
    is_lost: NDArray[np.bool_]


def given_labels(
    annotations: pa.Array | pa.ChunkedArray, interests: NDArray[np.uint64], lookup: LabelLookup
) -> GivenLabels:
    """Label images without the restriction and say what it takes.

    Args:
        annotations: list<struct<term_id, score>> of n images, term_ids ascending.
        interests: uint64 (n,), bit set of each image's L1 interests.
        lookup: dictionary and cluster maps.

    Source: paper section 3.2.1 ("jaguar"); SPEC M1.
    """
    labelled = label_images(annotations, interests, lookup, True, False)
    label_terms = labelled.label_terms.flatten()
    num_labels, num_terms = (
        np.diff(list_offsets(labelled.cluster_ids)),
        np.diff(list_offsets(label_terms)),
    )
    rows = np.repeat(np.repeat(np.arange(len(num_labels)), num_labels), num_terms)
    clusters = np.repeat(labelled.cluster_ids.flatten().to_numpy(), num_terms).astype(np.int64)
    terms = label_terms.flatten().to_numpy().astype(np.int64)
    is_lost = (interests[rows] & lookup.bit_of_cluster[clusters]) == 0
    return GivenLabels(rows, clusters, terms, is_lost)

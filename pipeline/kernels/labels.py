"""Labels of images: visual terms to clusters, clusters restricted to the image's interests.

One narrow pass over nested arrays, without a Python loop over images: terms are looked up in flat
arrays, the triples (image, cluster, term) are sorted as one packed integer each, and runs of
equal (image, cluster) become a label and its provenance.

The three variants of the paper's Table 2 are two switches: clusters only (no dictionary, no
restriction), with the dictionary, with dictionary and restriction.

Source: paper section 3.2.1 ("Visual Dictionary Restriction", "Annotation Clustering", "L1 Interest
Restriction") and Table 2; SPEC M1-M3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.label_lookup import LabelLookup
from pipeline.kernels.nested import flatten_annotations, offsets_of

REASONS = (
    "no_annotations",
    "not_in_visual_dictionary",
    "no_cluster",
    "no_interest",
    "interest_mismatch",
)
"""Steps that can take an image's last label, in their order."""


@dataclass(frozen=True)
class LabelledImages:
    """Result of `label_images` for n images.

    Attributes:
        cluster_ids: list<int32>, ascending without repeats; empty where the image has no label.
        label_terms: list<list<int32>>, for each label the terms that gave it, ascending.
        reason: int8 (n,), -1 for labelled images, else index in REASONS of the step that took the
            last label.
        counts: the funnel. After each step: ``annotations.<step>`` or ``labels.<step>`` and
            ``images.<step>`` (images that still have one), for the steps selected,
            in_visual_dictionary, clustered, restricted; and ``annotations.dropped.<reason>``,
            ``labels.dropped.<reason>``, ``images.dropped.<reason>``.
    """

    cluster_ids: pa.ListArray
    label_terms: pa.ListArray
    reason: NDArray[np.int8]
    counts: dict[str, int]


def label_images(
    annotations: pa.Array | pa.ChunkedArray,
    interests: NDArray[np.uint64],
    lookup: LabelLookup,
    use_dictionary: bool,
    restrict_to_interests: bool,
) -> LabelledImages:
    """Label a batch of images.

    Args:
        annotations: list<struct<term_id, score>> of n images, term_ids ascending; null is empty.
        interests: uint64 (n,), bit set of each image's L1 interests; see `interest_bits`.
        lookup: dictionary and cluster maps.
        use_dictionary: drop terms that are not in the visual dictionary.
        restrict_to_interests: drop clusters whose L1 interest is none of the image's; an image
            without interests then loses all of them.

    Raises:
        ValueError: as many interests as images are expected.
    """
    flat = flatten_annotations(annotations)
    num = len(flat.offsets) - 1
    if len(interests) != num:
        raise ValueError(f"interests: {len(interests)} images, expected {num} as in annotations.")
    rows, term, term_ids = flat.rows, lookup.row_of_terms(flat.term_ids), flat.term_ids
    if use_dictionary:
        visual = lookup.is_visual[term]
        rows, term, term_ids = rows[visual], term[visual], term_ids[visual]
    first = lookup.cluster_offsets[term]
    per_term = lookup.cluster_offsets[term + 1] - first
    source = np.repeat(np.arange(len(term)), per_term)
    before = np.cumsum(per_term) - per_term
    pair = np.arange(len(source)) + np.repeat(first - before, per_term)
    row, cluster = rows[source], lookup.clusters[pair]
    lost_row = row[:0]
    if restrict_to_interests:
        bit = lookup.interest_of_cluster[cluster].astype(np.uint64)
        allowed = ((interests[row] >> bit) & np.uint64(1)).astype(bool)
        lost_row = _distinct_rows(row[~allowed], cluster[~allowed])
        row, cluster, source = row[allowed], cluster[allowed], source[allowed]
    row, cluster, source = _sorted_triples(row, cluster, source)
    start = np.flatnonzero(_starts(row, cluster))
    labels = offsets_of(np.bincount(row[start], minlength=num))
    inner = pa.ListArray.from_arrays(
        pa.array(np.append(start, len(row)), pa.int32()), pa.array(term_ids[source], pa.int32())
    )
    reason, counts = _funnel(
        flat.rows, rows, lost_row, row[start], int((per_term == 0).sum()), interests
    )
    return LabelledImages(
        pa.ListArray.from_arrays(
            pa.array(labels, pa.int32()), pa.array(cluster[start], pa.int32())
        ),
        pa.ListArray.from_arrays(pa.array(labels, pa.int32()), inner),
        reason,
        counts,
    )


def _sorted_triples(
    row: NDArray[np.int64], cluster: NDArray[np.int32], source: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The triples (image, cluster, annotation) sorted by all three.

    Each is one uint64, because numpy sorts those with vector instructions, twenty times faster
    than it sorts by several keys.
    """
    source_bits, cluster_bits = _bits(source), _bits(cluster)
    if _bits(row) + cluster_bits + source_bits > 64:
        raise ValueError("label_images: the batch is too large for 64-bit keys; lower batch_rows.")
    key = row.astype(np.uint64) << np.uint64(cluster_bits)
    key = (key | cluster.astype(np.uint64)) << np.uint64(source_bits)
    key |= source.astype(np.uint64)
    key.sort()
    source_of = key & np.uint64((1 << source_bits) - 1)
    key >>= np.uint64(source_bits)
    cluster_of = key & np.uint64((1 << cluster_bits) - 1)
    key >>= np.uint64(cluster_bits)
    return key.astype(np.int64), cluster_of.astype(np.int64), source_of.astype(np.int64)


def _distinct_rows(row: NDArray[np.int64], cluster: NDArray[np.int32]) -> NDArray[np.int64]:
    """The image of each distinct pair (image, cluster), ascending."""
    cluster_bits = _bits(cluster)
    wide = (row.astype(np.uint64) << np.uint64(cluster_bits)) | cluster.astype(np.uint64)
    if _bits(row) + cluster_bits <= 32:  # twice as many a vector
        narrow = wide.astype(np.uint32)
        narrow.sort()
        wide = narrow.astype(np.uint64)
    else:
        wide.sort()
    wide = wide[np.append(True, wide[1:] != wide[:-1])[: len(wide)]]
    return np.asarray(wide >> np.uint64(cluster_bits), np.int64)


def _starts(row: NDArray[np.int64], cluster: NDArray[np.int64]) -> NDArray[np.bool_]:
    change = (row[1:] != row[:-1]) | (cluster[1:] != cluster[:-1])
    return np.append(True, change)[: len(row)]


def _bits(values: NDArray[np.integer]) -> int:
    return int(values.max(initial=0)).bit_length()


def _funnel(
    selected: NDArray[np.int64],
    visual: NDArray[np.int64],
    lost: NDArray[np.int64],
    kept: NDArray[np.int64],
    num_without_cluster: int,
    interests: NDArray[np.uint64],
) -> tuple[NDArray[np.int8], dict[str, int]]:
    """Reason of each image, and the counts.

    Args:
        selected: image of each annotation.
        visual: image of each annotation in the dictionary.
        lost: image of each label that the restriction took.
        kept: image of each label that is left.
        num_without_cluster: visual annotations whose term has no cluster.
        interests: uint64 (n,).
    """
    num = len(interests)
    left = [np.bincount(rows, minlength=num) > 0 for rows in (selected, visual, kept)]
    left.insert(2, left[2] | (np.bincount(lost, minlength=num) > 0))
    reason = np.full(num, -1, np.int8)
    reason[left[2] & ~left[3]] = REASONS.index("interest_mismatch")
    reason[left[2] & ~left[3] & (interests == 0)] = REASONS.index("no_interest")
    reason[left[1] & ~left[2]] = REASONS.index("no_cluster")
    reason[left[0] & ~left[1]] = REASONS.index("not_in_visual_dictionary")
    reason[~left[0]] = REASONS.index("no_annotations")
    lost_without = int((interests[lost] == 0).sum())
    counts = {
        "annotations.selected": len(selected),
        "annotations.in_visual_dictionary": len(visual),
        "labels.clustered": len(lost) + len(kept),
        "labels.restricted": len(kept),
        "annotations.dropped.not_in_visual_dictionary": len(selected) - len(visual),
        "annotations.dropped.no_cluster": num_without_cluster,
        "labels.dropped.no_interest": lost_without,
        "labels.dropped.interest_mismatch": len(lost) - lost_without,
    }
    for name, images in zip(
        ("selected", "in_visual_dictionary", "clustered", "restricted"), left, strict=True
    ):
        counts[f"images.{name}"] = int(images.sum())
    for i, name in enumerate(REASONS):
        counts[f"images.dropped.{name}"] = int((reason == i).sum())
    return reason, counts

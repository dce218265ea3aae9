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
from pipeline.kernels.nested import flatten_terms, offsets_of

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
    offsets, term_ids = flatten_terms(annotations)
    num = len(offsets) - 1
    if len(interests) != num:
        raise ValueError(f"interests: {len(interests)} images, expected {num} as in annotations.")
    given = np.diff(offsets)
    rows = np.repeat(np.arange(num, dtype=np.int32), given)
    num_clusters = lookup.num_clusters(term_ids, use_dictionary)
    source, cluster = _pairs(term_ids, num_clusters, lookup)
    row = rows.take(source)
    key, bits = _packed(row, cluster, source)
    lost = key[:0]
    if restrict_to_interests:
        allowed = (interests.take(row) & lookup.bit_of_cluster.take(cluster)) != 0
        lost, key = key.compress(~allowed), key.compress(allowed)
    key.sort()
    start = np.flatnonzero(_changes(key >> bits.source))
    label = key[start] >> bits.source
    kept = label >> bits.cluster
    labels = pa.array(offsets_of(np.bincount(kept, minlength=num)), pa.int32())
    inner = pa.ListArray.from_arrays(
        pa.array(np.append(start, len(key)), pa.int32()),
        pa.array(term_ids[key & bits.source_mask], pa.int32()),
    )
    clusters = pa.array(label & bits.cluster_mask, pa.int32())
    reason, counts = _funnel(given, rows, num_clusters, _images_of(lost, bits), kept, interests)
    return LabelledImages(
        pa.ListArray.from_arrays(labels, clusters),
        pa.ListArray.from_arrays(labels, inner),
        reason,
        counts,
    )


def _pairs(
    term_ids: NDArray[np.int32], num_clusters: NDArray[np.integer], lookup: LabelLookup
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Annotation and cluster of each pair of them, in no order: all first clusters, all second."""
    at = np.flatnonzero(num_clusters > 0)
    first = lookup.cluster_offsets.take(term_ids.take(at)).astype(np.int64)
    left = num_clusters.take(at)
    sources, clusters, which = [at[:0]], [lookup.clusters[:0]], 0
    while len(at):
        sources.append(at)
        clusters.append(lookup.clusters.take(first + which))
        which += 1
        more = left > which
        at, first, left = at.compress(more), first.compress(more), left.compress(more)
    return np.concatenate(sources), np.concatenate(clusters)


@dataclass(frozen=True)
class _Bits:
    """Where a packed triple (image, cluster, annotation) keeps its parts; the image is on top."""

    cluster: int
    source: int

    @property
    def cluster_mask(self) -> int:
        return (1 << self.cluster) - 1

    @property
    def source_mask(self) -> int:
        return (1 << self.source) - 1


def _packed(
    row: NDArray[np.int32], cluster: NDArray[np.int32], source: NDArray[np.int64]
) -> tuple[NDArray[np.int64], _Bits]:
    """The triples (image, cluster, annotation) as one integer each, ordered like them.

    Numpy sorts integers with vector instructions, twenty times faster than by several keys.
    """
    bits = _Bits(_bits(cluster), _bits(source))
    if _bits(row) + bits.cluster + bits.source > 63:
        raise ValueError("label_images: the batch is too large for 64-bit keys; lower batch_rows.")
    key = row.astype(np.int64)
    key <<= bits.cluster
    key |= cluster
    key <<= bits.source
    key |= source
    return key, bits


def _images_of(lost: NDArray[np.int64], bits: _Bits) -> NDArray[np.int64]:
    """The image of each distinct pair (image, cluster) of packed triples, ascending."""
    pair = lost >> bits.source
    if _bits(pair) <= 32:  # twice as many a vector
        pair = pair.astype(np.uint32)
    pair.sort()
    return np.asarray(pair.compress(_changes(pair)) >> bits.cluster, np.int64)


def _changes(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each value differs from the one before it."""
    change = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=change[1:])
    return change


def _bits(values: NDArray[np.integer]) -> int:
    return int(values.max(initial=0)).bit_length()


def _funnel(
    given: NDArray[np.int64],
    rows: NDArray[np.int32],
    num_clusters: NDArray[np.integer],
    lost: NDArray[np.int64],
    kept: NDArray[np.int64],
    interests: NDArray[np.uint64],
) -> tuple[NDArray[np.int8], dict[str, int]]:
    """Reason of each image, and the counts.

    Args:
        given: int64 (n,), annotations of each image.
        rows: image of each annotation.
        num_clusters: clusters of each annotation's term, -1 where the dictionary takes it.
        lost: image of each label that the restriction took.
        kept: image of each label that is left.
        interests: uint64 (n,).
    """
    num_visual, is_clusterless = int((num_clusters >= 0).sum()), num_clusters == 0
    restricted = _has_any(kept, len(given))
    clustered = restricted | _has_any(lost, len(given))
    visual = clustered | _has_any(rows.compress(is_clusterless), len(given))
    selected = given > 0
    reason = np.full(len(given), -1, np.int8)
    reason[clustered & ~restricted] = REASONS.index("interest_mismatch")
    reason[clustered & ~restricted & (interests == 0)] = REASONS.index("no_interest")
    reason[visual & ~clustered] = REASONS.index("no_cluster")
    reason[selected & ~visual] = REASONS.index("not_in_visual_dictionary")
    reason[~selected] = REASONS.index("no_annotations")
    lost_without = int((interests.take(lost) == 0).sum())
    counts = {
        "annotations.selected": len(rows),
        "annotations.in_visual_dictionary": num_visual,
        "labels.clustered": len(lost) + len(kept),
        "labels.restricted": len(kept),
        "annotations.dropped.not_in_visual_dictionary": len(rows) - num_visual,
        "annotations.dropped.no_cluster": int(is_clusterless.sum()),
        "labels.dropped.no_interest": lost_without,
        "labels.dropped.interest_mismatch": len(lost) - lost_without,
        "images.selected": int(selected.sum()),
        "images.in_visual_dictionary": int(visual.sum()),
        "images.clustered": int(clustered.sum()),
        "images.restricted": int(restricted.sum()),
    }
    for i, name in enumerate(REASONS):
        counts[f"images.dropped.{name}"] = int((reason == i).sum())
    return reason, counts


def _has_any(rows: NDArray[np.integer], num: int) -> NDArray[np.bool_]:
    """Whether each of num images is among the rows."""
    found = np.zeros(num, bool)
    found[rows] = True
    return found

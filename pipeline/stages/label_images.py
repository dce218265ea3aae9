"""Labels of images: visual terms to clusters, clusters restricted to the image's interests.

Cost at 1.329 billion images: one narrow pass over three aligned tables (about 100 GB), no shuffle;
the dictionary and cluster maps (some 4 MB) in every worker.

Source: paper section 3.2.1; SPEC M1-M3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.labels import LabelImagesParams
from pipeline.kernels.align import positions_of, take_or_null
from pipeline.kernels.label_lookup import LabelLookup, interest_bits
from pipeline.kernels.labels import REASONS
from pipeline.kernels.labels import label_images as label
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import IMAGES, INTERESTS
from schemas.labels import (
    CLUSTERS,
    IMAGE_INTERESTS,
    IMAGE_LABELS,
    SELECTED_ANNOTATIONS,
    TERM_CLUSTERS,
    UNLABELLED_IMAGES,
    VISUAL_TERMS,
)


@dataclass(frozen=True)
class LabelState:
    """What every batch needs.

    Attributes:
        lookup: dictionary and cluster maps.
        interests: names of the taxonomy; bit i of an image's interests stands for the i-th.
    """

    lookup: LabelLookup
    interests: list[str]


def prepare(
    visual_terms: pa.Table,
    term_clusters: pa.Table,
    clusters: pa.Table,
    interests: pa.Table,
    params: LabelImagesParams,
) -> LabelState:
    """Flat arrays from the small tables.

    Raises:
        ValueError: clusters are not numbered from 0 without gaps, or one is of an interest that the
            taxonomy does not have.
    """
    del params
    names = interests["l1_interest"].to_pylist()
    by_id = clusters.sort_by("cluster_id")
    ids = by_id["cluster_id"].to_numpy()
    if not np.array_equal(ids, np.arange(len(ids))):
        wrong = int(np.argmax(ids != np.arange(len(ids))))
        raise ValueError(
            f"clusters.cluster_id: found {ids[wrong]} as number {wrong}, expected 0, 1, 2, ... "
            "without gaps."
        )
    found = pc.index_in(by_id["l1_interest"], value_set=pa.array(names, pa.string()))
    if found.null_count:
        stranger = by_id["l1_interest"].filter(pc.is_null(found))[0].as_py()
        raise ValueError(
            f"clusters.l1_interest: found {stranger!r}, expected one of the taxonomy's "
            f"{len(names)} interests. Run the stages on one taxonomy."
        )
    lookup = LabelLookup.build(
        visual_terms["term_id"].to_numpy(),
        term_clusters["term_id"].to_numpy(),
        term_clusters["cluster_id"].to_numpy(),
        found.to_numpy(),
    )
    return LabelState(lookup, names)


def label_batch(
    images: pa.Table,
    selected_annotations: pa.Table,
    image_interests: pa.Table,
    state: LabelState,
    params: LabelImagesParams,
) -> BatchResult:
    """Label a batch of images; one that has no annotations or no interests has none."""
    ids = images["image_id"]
    at = positions_of(ids, selected_annotations["image_id"])
    annotations = take_or_null(selected_annotations["annotations"], at)
    of_interest = positions_of(ids, image_interests["image_id"])
    names = take_or_null(image_interests["l1_interests"], of_interest)
    result = label(
        annotations,
        interest_bits(names, state.interests),
        state.lookup,
        use_dictionary=True,
        restrict_to_interests=params.restrict_to_interests,
    )
    is_labelled = pa.array(result.reason < 0)
    labelled = pa.table(
        {
            "image_id": ids,
            "cluster_ids": result.cluster_ids,
            "label_terms": result.label_terms,
        }
    ).filter(is_labelled)
    lost = np.flatnonzero(result.reason >= 0)
    unlabelled = pa.table(
        {
            "image_id": ids.take(pa.array(lost)),
            "reason": pa.array([REASONS[r] for r in result.reason[lost].tolist()], pa.string()),
        }
    )
    strangers = selected_annotations.num_rows - int((at >= 0).sum())
    counts = {**result.counts, "annotated_images.dropped.unknown_image": strangers}
    return BatchResult({"image_labels": labelled, "unlabelled_images": unlabelled}, counts)


STAGE = BatchwiseStage(
    name="label_images",
    version=1,
    kernel=label_batch,
    prepare=prepare,
    params=LabelImagesParams,
    aligned=(IMAGES, SELECTED_ANNOTATIONS, IMAGE_INTERESTS),
    broadcast=(VISUAL_TERMS, TERM_CLUSTERS, CLUSTERS, INTERESTS),
    columns={"images": ("image_id",)},
    outputs=(IMAGE_LABELS, UNLABELLED_IMAGES),
    ledger=(LedgerRule("images", ("images",), ("image_labels",), dropped=("unlabelled_images",)),),
)

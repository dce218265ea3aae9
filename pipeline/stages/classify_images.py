"""L1 interests of every image (paper section 3.2.1; SPEC L3).

Cost at 1.329 billion images: one narrow pass over text embeddings (2 TB) and interactions, one
product of 24 rows an image; no shuffle. Images without text and interactions have no interest.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config.labels import ClassifyImagesParams
from pipeline.kernels.align import positions_of, take_or_null
from pipeline.kernels.interest_inputs import image_features
from pipeline.kernels.interests import InterestModel, assign, predict
from pipeline.kernels.nested import list_offsets, offsets_of, one_chunk
from pipeline.kernels.vectors import to_matrix
from pipeline.stages.interest_model import read_model
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import IMAGE_INTERACTIONS
from schemas.labels import IMAGE_INTEREST_MODEL, IMAGE_INTERESTS, IMAGE_TEXT_EMBEDDINGS


def prepare(image_interest_model: pa.Table, params: ClassifyImagesParams) -> InterestModel:
    """Read the model."""
    del params
    return read_model(image_interest_model)


def features_of(
    embeddings: pa.Array | pa.ChunkedArray,
    interactions: pa.Array | pa.ChunkedArray | None,
    names: tuple[str, ...],
) -> NDArray[np.float32]:
    """Features of images, rows of one order.

    Args:
        embeddings: vector column, n rows.
        interactions: list<struct<l1_interest, count>>, null where not given; None for no table.
        names: the taxonomy, L names.

    Returns:
        float32 (n, d + L + 1); see `pipeline.kernels.interest_inputs.image_features`.
    """
    vectors = to_matrix(embeddings)
    if interactions is None:
        return image_features(vectors, len(names))
    lists = one_chunk(interactions)
    items = lists.flatten()
    rows = np.repeat(np.arange(len(lists)), np.diff(list_offsets(lists)))
    found = pc.index_in(
        pc.struct_field(items, "l1_interest"), value_set=pa.array(list(names), pa.string())
    )
    known = pc.is_valid(found).to_numpy(zero_copy_only=False)
    counts = np.zeros((len(lists), len(names)), np.int64)
    amounts = pc.struct_field(items, "count").to_numpy()
    np.add.at(counts, (rows[known], pc.drop_null(found).to_numpy()), amounts[known])
    is_given = lists.is_valid().to_numpy(zero_copy_only=False)
    return image_features(vectors, len(names), counts, is_given)


def classify_batch(
    image_text_embeddings: pa.Table,
    image_interactions: pa.Table | None,
    state: InterestModel,
    params: ClassifyImagesParams,
) -> BatchResult:
    """Interests above their thresholds; without any, the best one if configured."""
    ids = image_text_embeddings["image_id"]
    if len(ids) == 0:  # an empty bucket does not know the width of its vectors
        return BatchResult({"image_interests": IMAGE_INTERESTS.empty()})
    given = None
    if image_interactions is not None:
        at = positions_of(ids, image_interactions["image_id"])
        given = take_or_null(image_interactions["interactions"], at)
    features = features_of(image_text_embeddings["embedding"], given, state.interests)
    says_something = np.any(features != 0, axis=1)
    chosen = assign(
        state, predict(state, features), params.fallback_best, params.min_fallback_probability
    )
    chosen &= says_something[:, None]
    order = np.argsort(np.array(state.interests))
    row, column = np.nonzero(chosen[:, order])
    names = pa.array([state.interests[i] for i in order], pa.string())
    lists = pa.ListArray.from_arrays(
        pa.array(offsets_of(np.bincount(row, minlength=len(ids))), pa.int32()),
        names.take(pa.array(column)),
    )
    counts = {
        "images.without_text": int((~says_something).sum()),
        "images.uncategorised": int((says_something & ~chosen.any(axis=1)).sum()),
    }
    return BatchResult(
        {"image_interests": pa.table({"image_id": ids, "l1_interests": lists})}, counts
    )


STAGE = BatchwiseStage(
    name="classify_images",
    version=1,
    kernel=classify_batch,
    prepare=prepare,
    params=ClassifyImagesParams,
    aligned=(IMAGE_TEXT_EMBEDDINGS, IMAGE_INTERACTIONS),
    broadcast=(IMAGE_INTEREST_MODEL,),
    optional=(IMAGE_INTERACTIONS,),
    outputs=(IMAGE_INTERESTS,),
    batch_rows=16_384,
    ledger=(LedgerRule("images", ("image_text_embeddings",), ("image_interests",)),),
)

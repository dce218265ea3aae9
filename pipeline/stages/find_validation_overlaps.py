"""Images near a validation image, and the nearest that remain (paper section 3.3; SPEC N6).

Every image is compared with every validation image, so no leak depends on an index: Hamming
distances are products of vectors of signs, cosines products of embeddings. Cost at 1.329 billion
images and 10^5 validation images of 256 dimensions: 8.5 x 10^16 operations, some 250 core-hours;
one narrow pass, no shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.align import positions_of
from pipeline.kernels.nearest import nearest_cosine, nearest_hamming
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import l2_normalise, to_matrix
from pipeline.stages.stage import BatchResult, BatchwiseStage
from schemas.images import (
    IMAGE_FINGERPRINTS,
    VALIDATION_FINGERPRINTS,
    VALIDATION_NEAREST,
    VALIDATION_OVERLAPS,
)
from schemas.ingested import IMAGE_EMBEDDINGS, VALIDATION_EMBEDDINGS


@dataclass(frozen=True)
class ValidationState:
    """The validation sets in memory, every array ascending by validation_id.

    Attributes:
        digest_ids: validation_id of each fingerprint.
        digests: sha256 of the same.
        hash_ids: validation_id of each image that is not flat.
        hashes: uint64 of the same.
        vector_ids: validation_id of each embedding that is not zero.
        vectors: float32 (n, d) of the same, unit rows.
    """

    digest_ids: pa.Array
    digests: pa.Array
    hash_ids: pa.Array
    hashes: NDArray[np.uint64]
    vector_ids: pa.Array
    vectors: NDArray[np.float32]


def prepare(
    validation_fingerprints: pa.Table, validation_embeddings: pa.Table, params: NearDuplicateParams
) -> ValidationState:
    """Sort by validation_id, so that of equally near ones the smallest is named."""
    del params
    prints = validation_fingerprints.sort_by("validation_id")
    sharp = prints.filter(pc.invert(prints["is_flat"]))
    embeddings = validation_embeddings.sort_by("validation_id")
    vectors = l2_normalise(to_matrix(one_array(embeddings["embedding"])))
    known = np.flatnonzero(np.any(vectors != 0, axis=1))
    return ValidationState(
        one_array(prints["validation_id"]),
        one_array(prints["sha256"]),
        one_array(sharp["validation_id"]),
        sharp["phash"].to_numpy().view(np.uint64),
        one_array(embeddings["validation_id"]).take(pa.array(known)),
        vectors[known],
    )


@dataclass(frozen=True)
class Compared:
    """One tier of a batch: images that have its signal, each with the nearest validation image.

    Attributes:
        tier: name.
        rows: int64 (k,), rows of the batch, ascending.
        at: int64 (k,), position of the nearest among ``others``, -1 if there is none.
        distance: float32 (k,).
        is_near: bool (k,), within the limit.
        others: validation_id of those that have the signal.
        num_pairs: pairs compared.
    """

    tier: str
    rows: NDArray[np.int64]
    at: NDArray[np.int64]
    distance: NDArray[np.float32]
    is_near: NDArray[np.bool_]
    others: pa.Array
    num_pairs: int


def compare_batch(
    image_fingerprints: pa.Table,
    image_embeddings: pa.Table,
    state: ValidationState,
    params: NearDuplicateParams,
) -> BatchResult:
    """Compare a batch with all validation images, in every tier that is on."""
    ids = one_array(image_fingerprints["image_id"])
    found = []
    if params.exact:
        found.append(_exact(image_fingerprints, state))
    if params.perceptual:
        found.append(_perceptual(image_fingerprints, state, params.max_hamming))
    if params.semantic:
        found.append(_semantic(ids, image_embeddings, state, params.min_cosine))
    is_left = np.ones(len(ids), bool)
    for part in found:
        is_left[part.rows[part.is_near]] = False
    overlaps = pa.concat_tables(
        [VALIDATION_OVERLAPS.empty(), *(_overlaps(ids, part) for part in found)]
    )
    nearest = [_nearest(ids, part, is_left) for part in found if len(ids)]
    tables = {
        "validation_overlaps": overlaps.sort_by([("image_id", "ascending"), ("tier", "ascending")]),
        "validation_nearest": pa.Table.from_pylist(
            sorted(nearest, key=lambda row: str(row["tier"])), VALIDATION_NEAREST.arrow_schema
        ),
    }
    return BatchResult(tables, {f"pairs.{part.tier}": part.num_pairs for part in found})


def _exact(prints: pa.Table, state: ValidationState) -> Compared:
    at = positions_of(prints["sha256"], state.digests)
    rows = np.flatnonzero(at >= 0)
    return Compared(
        "exact",
        rows,
        at[rows],
        np.zeros(len(rows), np.float32),
        np.ones(len(rows), bool),
        state.digest_ids,
        prints.num_rows * len(state.digest_ids),
    )


def _perceptual(prints: pa.Table, state: ValidationState, radius: int) -> Compared:
    rows = np.flatnonzero(~prints["is_flat"].to_numpy())
    hashes = prints["phash"].to_numpy().view(np.uint64)[rows]
    distance, at = nearest_hamming(hashes, state.hashes)
    num_pairs = len(rows) * len(state.hashes)
    is_near = distance <= radius
    return Compared("perceptual", rows, at, distance, is_near, state.hash_ids, num_pairs)


def _semantic(
    ids: pa.Array, embeddings: pa.Table, state: ValidationState, min_cosine: float
) -> Compared:
    at = positions_of(ids, embeddings["image_id"])
    rows = np.flatnonzero(at >= 0)
    vectors = l2_normalise(to_matrix(one_array(embeddings["embedding"]).take(pa.array(at[rows]))))
    known = np.any(vectors != 0, axis=1)
    rows, vectors = rows[known], vectors[known]
    cosine, at = nearest_cosine(vectors, state.vectors)
    distance = np.maximum(1.0 - cosine, 0.0).astype(np.float32)
    num_pairs = len(rows) * len(state.vectors)
    is_near = cosine >= min_cosine
    return Compared("semantic", rows, at, distance, is_near, state.vector_ids, num_pairs)


def _overlaps(ids: pa.Array, part: Compared) -> pa.Table:
    near = np.flatnonzero(part.is_near)
    return pa.table(
        [
            ids.take(pa.array(part.rows[near])),
            pa.array([part.tier] * len(near), pa.string()),
            part.others.take(pa.array(part.at[near])),
            pa.array(part.distance[near], pa.float32()),
        ],
        schema=VALIDATION_OVERLAPS.arrow_schema,
    )


def _nearest(ids: pa.Array, part: Compared, is_left: NDArray[np.bool_]) -> dict[str, object]:
    """Row of `validation_nearest`; of equally near images the first."""
    row: dict[str, object] = {"image_id": ids[0].as_py(), "tier": part.tier}
    row["num_pairs"] = part.num_pairs
    candidates = np.flatnonzero(is_left[part.rows] & (part.at >= 0))
    if len(candidates):
        best = int(candidates[np.argmin(part.distance[candidates])])
        row["nearest_image_id"] = ids[int(part.rows[best])].as_py()
        row["validation_id"] = part.others[int(part.at[best])].as_py()
        row["distance"] = float(part.distance[best])
    return row


STAGE = BatchwiseStage(
    name="find_validation_overlaps",
    version=1,
    kernel=compare_batch,
    prepare=prepare,
    params=NearDuplicateParams,
    section="near_duplicates",
    aligned=(IMAGE_FINGERPRINTS, IMAGE_EMBEDDINGS),
    broadcast=(VALIDATION_FINGERPRINTS, VALIDATION_EMBEDDINGS),
    columns={
        "image_fingerprints": ("image_id", "sha256", "phash", "is_flat"),
        "validation_fingerprints": ("validation_id", "sha256", "phash", "is_flat"),
    },
    outputs=(VALIDATION_OVERLAPS, VALIDATION_NEAREST),
    batch_rows=16_384,
)

"""Images near a validation image, and the nearest that remain (paper section 3.3; SPEC N6).

Every image is compared with every validation image, so no leak depends on an index: Hamming
distances are products of vectors of signs, cosines products of embeddings. Cost at 1.329 billion
images and 10^5 validation images of 256 dimensions: 8.5 x 10^16 operations, some 250 core-hours; one
narrow pass, no shuffle.
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

_SCHEMA = VALIDATION_OVERLAPS.arrow_schema


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


def compare_batch(
    image_fingerprints: pa.Table,
    image_embeddings: pa.Table,
    state: ValidationState,
    params: NearDuplicateParams,
) -> BatchResult:
    """Compare a batch with all validation images, in every tier that is on."""
    ids = one_array(image_fingerprints["image_id"])
    parts = []
    if params.exact:
        found = pc.index_in(image_fingerprints["sha256"], value_set=state.digests)
        rows = np.flatnonzero(pc.is_valid(found).to_numpy())
        at = found.take(pa.array(rows)).to_numpy().astype(np.int64)
        parts.append(("exact", rows, at, np.zeros(len(rows), np.float32), state.digest_ids, 0.0))
    if params.perceptual:
        sharp = np.flatnonzero(~image_fingerprints["is_flat"].to_numpy())
        hashes = image_fingerprints["phash"].to_numpy().view(np.uint64)[sharp]
        distance, at = nearest_hamming(hashes, state.hashes)
        limit = float(params.max_hamming)
        parts.append(("perceptual", sharp, at, distance, state.hash_ids, limit))
    if params.semantic:
        rows, vectors = _vectors(ids, image_embeddings)
        cosine, at = nearest_cosine(vectors, state.vectors)
        distance = np.maximum(1.0 - cosine, 0.0).astype(np.float32)
        limit = 1.0 - params.min_cosine + 1e-6
        parts.append(("semantic", rows, at, distance, state.vector_ids, limit))
    overlaps = [_rows(ids, *part[:5], part[3] <= part[5]) for part in parts]
    merged = _merge(overlaps)
    removed = set(merged["image_id"].to_pylist())
    is_left = np.array([i not in removed for i in ids.to_pylist()], bool)
    nearest = [_nearest(ids, part, is_left) for part in parts]
    counts = {f"pairs.{part[0]}": len(part[1]) * len(part[4]) for part in parts[1:]}
    counts["pairs.exact"] = len(ids) * len(state.digest_ids)
    tables = {"validation_overlaps": merged, "validation_nearest": _merge(nearest)}
    return BatchResult(tables, counts)


Part = tuple[str, NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], pa.Array, float]


def _vectors(ids: pa.Array, embeddings: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of the batch that have a direction, and their unit vectors."""
    at = positions_of(ids, embeddings["image_id"])
    rows = np.flatnonzero(at >= 0)
    vectors = l2_normalise(to_matrix(one_array(embeddings["embedding"]).take(pa.array(at[rows]))))
    known = np.any(vectors != 0, axis=1)
    return rows[known], vectors[known]


def _rows(
    ids: pa.Array,
    tier: str,
    rows: NDArray[np.int64],
    at: NDArray[np.int64],
    distance: NDArray[np.float32],
    names: pa.Array,
    chosen: NDArray[np.bool_],
) -> pa.Table:
    picked = np.flatnonzero(chosen & (at >= 0))
    return pa.table(
        [
            ids.take(pa.array(rows[picked])),
            pa.array([tier] * len(picked), pa.string()),
            names.take(pa.array(at[picked])),
            pa.array(distance[picked], pa.float32()),
        ],
        schema=_SCHEMA,
    )


def _nearest(ids: pa.Array, part: Part, is_left: NDArray[np.bool_]) -> pa.Table:
    """The one row of a tier that is nearest among images that remain."""
    tier, rows, at, distance, names, _ = part
    candidates = np.flatnonzero(is_left[rows] & (at >= 0))
    chosen = np.zeros(len(rows), bool)
    if len(candidates):
        chosen[candidates[np.argmin(distance[candidates])]] = True
    return _rows(ids, tier, rows, at, distance, names, chosen)


def _merge(parts: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(parts) if parts else _SCHEMA.empty_table()
    return table.sort_by([("image_id", "ascending"), ("tier", "ascending")])


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

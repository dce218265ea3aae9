"""Visual embeddings of images, where no production embeddings are given (SPEC I6).

Cost at 1.329 billion images of 224 pixels: one read of all bytes; 25,000 core-hours with the
packaged encoder (15 images/s a core); ``device=cuda`` takes one task a GPU (not measured). No
shuffle. A killed run goes on with the buckets that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config.ingest import EmbedImagesParams
from pipeline.files.contents import stream_contents
from pipeline.files.fetch import FetchPolicy
from pipeline.kernels.encode_images import ImageEncoder, load_image_encoder, to_rgb
from pipeline.kernels.images import ImageLimits, Rejection, decode_image
from pipeline.kernels.reasons import RowReason
from pipeline.kernels.row_checks import rejected_rows, shorten
from pipeline.kernels.vectors import from_matrix
from pipeline.stages.fingerprint_images import UNREADABLE
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import IMAGE_EMBEDDINGS, IMAGES, REJECTED_IMAGE_EMBEDDINGS


def load_encoder(params: EmbedImagesParams) -> ImageEncoder:
    """The encoder, loaded once a worker."""
    return load_image_encoder(
        params.model, params.image_size, params.device, params.batch_size, params.threads
    )


def embed_images(images: pa.Table, state: ImageEncoder, params: EmbedImagesParams) -> BatchResult:
    """Vectors of the images that decode, reasons of the others."""
    embedded, rejected = embed_rows(images, "image_id", state, params)
    return BatchResult({"image_embeddings": embedded, "rejected_image_embeddings": rejected})


def embed_rows(
    rows: pa.Table, key: str, encoder: ImageEncoder, params: EmbedImagesParams
) -> tuple[pa.Table, pa.Table]:
    """Embed rows with `bytes` or `uri`; one batch of pictures is in memory at a time.

    Args:
        rows: sorted by ``key``.
        key: column that names a row.
        encoder: of the params.
        params: limits and reads.

    Returns:
        (key, embedding) and (row_key, reason, detail), both sorted by key.
    """
    keys = rows.column(key).to_pylist()
    limits = ImageLimits(params.limits.max_bytes, params.limits.max_pixels)
    policy = FetchPolicy(params.read_seconds, params.read_retries, params.read_threads)
    kept: list[str] = []
    reasons: dict[str, str] = {}
    details: dict[str, str] = {}

    def pictures() -> Iterator[Image.Image]:
        contents = stream_contents(rows["bytes"], rows["uri"], limits.max_bytes, policy)
        for name, content in zip(keys, contents, strict=True):
            if isinstance(content, Exception):
                reasons[name], details[name] = UNREADABLE, type(content).__name__
                continue
            image = decode_image(content, limits)
            if isinstance(image, Rejection):
                reasons[name], details[name] = image.reason.value, shorten(image.detail)
            else:
                kept.append(name)
                yield to_rgb(image.image)

    vectors = encoder.encode(pictures())
    finite = np.isfinite(vectors).all(axis=1)
    for row in np.flatnonzero(~finite):
        reasons[kept[row]] = RowReason.EMBEDDING_NOT_FINITE.value
    bad = [name for name in keys if name in reasons]
    rejected = rejected_rows(bad, [reasons[b] for b in bad], [details.get(b) or None for b in bad])
    embedded = pa.table(
        {
            key: pa.array(kept, pa.string()).filter(pa.array(finite)),
            "embedding": from_matrix(vectors[finite]),
        }
    )
    return embedded, rejected


STAGE = BatchwiseStage(
    name="embed_images",
    version=1,
    kernel=embed_images,
    prepare=load_encoder,
    params=EmbedImagesParams,
    aligned=(IMAGES,),
    outputs=(IMAGE_EMBEDDINGS, REJECTED_IMAGE_EMBEDDINGS),
    columns={"images": ("image_id", "uri", "bytes")},
    batch_rows=4096,
    ledger=(
        LedgerRule(
            "images", ("images",), ("image_embeddings",), dropped=("rejected_image_embeddings",)
        ),
    ),
)

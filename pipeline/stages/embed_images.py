"""Visual embeddings of images, where no production embeddings are given (SPEC I6).

Cost at 1.329 billion images of 224 pixels: one read of all bytes; 25,000 core-hours with the
packaged encoder (15 images/s a core), or 370 GPU-hours at 1,000 images/s with ``device=cuda``. No
shuffle. A killed run goes on with the buckets that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config.ingest import EmbedImagesParams
from pipeline.files.contents import read_contents
from pipeline.files.fetch import FetchPolicy
from pipeline.kernels.encode_images import ImageEncoder, load_image_encoder, to_rgb
from pipeline.kernels.images import ImageLimits, Rejection, decode_image
from pipeline.kernels.reasons import RowReason
from pipeline.kernels.row_checks import REJECTED_SCHEMA, shorten
from pipeline.kernels.vectors import from_matrix
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import IMAGE_EMBEDDINGS, IMAGES, REJECTED_IMAGE_EMBEDDINGS

_READ_ROWS = 64
"""Pictures read together where the table has only their uris."""


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
    kept: list[str] = []
    bad: list[dict[str, str]] = []

    def pictures() -> Iterator[Image.Image]:
        contents = _contents(rows, limits.max_bytes, params)
        for name, content in zip(keys, contents, strict=True):
            if isinstance(content, Exception):
                bad.append(_rejected(name, *_unreadable(content)))
                continue
            image = decode_image(content, limits)
            if isinstance(image, Rejection):
                bad.append(_rejected(name, image.reason, image.detail))
            else:
                kept.append(name)
                yield to_rgb(image.image)

    vectors = encoder.encode(pictures())
    finite = np.isfinite(vectors).all(axis=1)
    for row in np.flatnonzero(~finite):
        bad.append(_rejected(kept[row], RowReason.EMBEDDING_NOT_FINITE, ""))
    bad.sort(key=lambda row: row["row_key"].encode())
    embedded = pa.table(
        {
            key: pa.array(kept, pa.string()).filter(pa.array(finite)),
            "embedding": from_matrix(vectors[finite]),
        }
    )
    return embedded, pa.Table.from_pylist(bad, REJECTED_SCHEMA)


def _contents(
    rows: pa.Table, max_bytes: int, params: EmbedImagesParams
) -> Iterator[bytes | Exception | None]:
    """Encoded pictures in order, read a few at a time.

    Raises:
        OSError: 64 files in a row cannot be read, for other reasons than absence: the storage is at
            fault, and setting the pictures aside would hide it.
    """
    policy = FetchPolicy(params.read_seconds, params.read_retries, params.read_threads)
    data, uris = rows.column("bytes"), rows.column("uri")
    for start in range(0, rows.num_rows, _READ_ROWS):
        part = slice(start, start + _READ_ROWS)
        found = read_contents(data[part], uris[part], max_bytes, policy)
        if len(found) == _READ_ROWS and all(map(_is_outage, found)):
            raise OSError(
                f"images.uri: {_READ_ROWS} files in a row cannot be read, e.g. {uris[start]}: "
                f"{found[0]!r}. Is the storage reachable from the workers?"
            )
        yield from found


def _is_outage(content: bytes | Exception | None) -> bool:
    return isinstance(content, Exception) and not isinstance(content, FileNotFoundError)


def _unreadable(error: Exception) -> tuple[str, str]:
    """Reason and detail of a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "not_found", ""
    reason = "timed_out" if isinstance(error, TimeoutError) else "unreadable"
    return reason, f"{type(error).__name__}: {error}"


def _rejected(name: str, reason: str, detail: str) -> dict[str, str]:
    return {"row_key": name, "reason": str(reason), "detail": shorten(detail)}


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

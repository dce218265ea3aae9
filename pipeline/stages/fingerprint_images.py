"""Fingerprints of images that decode; the others are set aside by reason (SPEC N1, Y1, W4).

Cost at 1.329 billion images of 30 KB: one read of 40 TB and one decode an image, some 700 images a
second and core (530 core-hours), no shuffle; 4.1 KB out an image, most of it the thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.config.images import FingerprintImagesParams
from pipeline.files.contents import stream_contents
from pipeline.files.fetch import FetchPolicy
from pipeline.kernels.fingerprints import fingerprint_images
from pipeline.kernels.image_headers import ImageLimits
from pipeline.kernels.row_checks import one_array, rejected_rows
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.images import BAD_IMAGES, IMAGE_FINGERPRINTS
from schemas.ingested import IMAGES

UNREADABLE = "unreadable"
"""Reason of an image whose file could not be read after all tries."""


def fingerprint_batch(
    images: pa.Table, state: None, params: FingerprintImagesParams
) -> BatchResult:
    """Read, decode and hash a batch."""
    del state
    good, bad = fingerprint_rows(images, "image_id", params)
    return BatchResult({"image_fingerprints": good, "rejected_fingerprints": bad})


def fingerprint_rows(
    rows: pa.Table, key: str, params: FingerprintImagesParams
) -> tuple[pa.Table, pa.Table]:
    """Fingerprints by key, and the rows that have none.

    Args:
        rows: ``key``, uri and bytes.
        key: identifying column.
        params: caps and how to read.
    """
    policy = FetchPolicy(params.read_seconds, params.read_retries, params.read_threads)
    limits = ImageLimits(params.limits.max_bytes, params.limits.max_pixels)
    failed: dict[int, str] = {}

    def contents() -> Iterator[bytes | None]:
        streamed = stream_contents(rows["bytes"], rows["uri"], limits.max_bytes, policy)
        for row, content in enumerate(streamed):
            if isinstance(content, Exception):
                failed[row] = type(content).__name__
                yield None
            else:
                yield content

    found = fingerprint_images(contents(), limits, is_approximate=params.is_approximate)
    keys = one_array(rows[key])
    good = found.table.add_column(0, key, keys.take(pa.array(found.rows)))
    bad_rows = found.rejected_rows.tolist()
    reasons = [
        UNREADABLE if row in failed else reason
        for row, reason in zip(bad_rows, found.reasons, strict=True)
    ]
    names = keys.take(pa.array(bad_rows, pa.int64())).to_pylist()
    bad = rejected_rows(names, reasons, [failed.get(row) for row in bad_rows])
    return good, bad


STAGE = BatchwiseStage(
    name="fingerprint_images",
    version=1,
    kernel=fingerprint_batch,
    params=FingerprintImagesParams,
    aligned=(IMAGES,),
    columns={"images": ("image_id", "uri", "bytes")},
    outputs=(IMAGE_FINGERPRINTS, BAD_IMAGES),
    batch_rows=1024,
    ledger=(
        LedgerRule(
            "images", ("images",), ("image_fingerprints",), dropped=("rejected_fingerprints",)
        ),
    ),
)

"""Fingerprints of images that decode; the others are set aside by reason (SPEC N1, Y1, W4).

Cost at 1.329 billion images of 30 KB: one read of 40 TB and one decode an image, some 700 images a
second and core (530 core-hours), no shuffle; 4.1 KB out an image, most of it the thumbnail.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.config.images import FingerprintImagesParams
from pipeline.files.contents import read_contents
from pipeline.files.fetch import FetchPolicy
from pipeline.kernels.fingerprints import fingerprint_images
from pipeline.kernels.image_headers import ImageLimits
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
    caps = params.limits
    outcomes = read_contents(rows["bytes"], rows["uri"], caps.max_bytes, policy)
    contents = [None if isinstance(found, Exception) else found for found in outcomes]
    limits = ImageLimits(max_bytes=caps.max_bytes, max_pixels=caps.max_pixels)
    found = fingerprint_images(contents, limits)
    keys = rows[key]
    good = found.table.add_column(0, key, keys.take(pa.array(found.rows)))
    failed = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, Exception)}
    bad_rows = np.asarray(found.rejected_rows).tolist()
    reasons = [
        UNREADABLE if i in failed else reason
        for i, reason in zip(bad_rows, found.reasons, strict=True)
    ]
    bad = pa.table(
        {
            "row_key": keys.take(pa.array(bad_rows, pa.int64())),
            "reason": pa.array(reasons, pa.string()),
            "detail": pa.array(
                [type(failed[i]).__name__ if i in failed else None for i in bad_rows], pa.string()
            ),
        }
    )
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

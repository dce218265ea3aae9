"""Fingerprints of validation images, by the same rules as the corpus (SPEC N6).

Cost: evaluation sets are small; as `fingerprint_images` an image.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.config.images import FingerprintImagesParams
from pipeline.stages.fingerprint_images import fingerprint_rows
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.images import BAD_VALIDATION_IMAGES, VALIDATION_FINGERPRINTS
from schemas.ingested import VALIDATION_IMAGES


def fingerprint_batch(
    validation_images: pa.Table, state: None, params: FingerprintImagesParams
) -> BatchResult:
    """Read, decode and hash a batch."""
    del state
    good, bad = fingerprint_rows(validation_images, "validation_id", params)
    return BatchResult({"validation_fingerprints": good, "rejected_validation_fingerprints": bad})


STAGE = BatchwiseStage(
    name="fingerprint_validation_images",
    version=1,
    kernel=fingerprint_batch,
    params=FingerprintImagesParams,
    section="fingerprint_images",
    aligned=(VALIDATION_IMAGES,),
    columns={"validation_images": ("validation_id", "uri", "bytes")},
    outputs=(VALIDATION_FINGERPRINTS, BAD_VALIDATION_IMAGES),
    batch_rows=1024,
    ledger=(
        LedgerRule(
            "images",
            ("validation_images",),
            ("validation_fingerprints",),
            dropped=("rejected_validation_fingerprints",),
        ),
    ),
)

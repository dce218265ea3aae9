"""Opt-outs as (kind, value) entries (SPEC I1, N5, W6).

Cost: one task for a list of up to some 10^7 entries. There is no conservation law by rows here:
a row may name an image by identifier and by digest and gives two entries; doubled entries are one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame

from pipeline.config.ingest import IngestParams
from pipeline.kernels.ingest_terms import check_blocked
from pipeline.stages.arrow import check_rows
from pipeline.stages.stage import RelationalStage, StageContext
from schemas.ingested import BLOCKED_IMAGES, REJECTED_BLOCKED_IMAGES
from schemas.inputs import SOURCE_BLOCKED_IMAGES


def ingest_blocked_images(
    source_blocked_images: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Check the list as one whole."""
    del params
    rows = source_blocked_images
    good, bad = check_rows(rows, "image_id", BLOCKED_IMAGES, check_blocked, ctx, whole=True)
    return {"blocked_images": good, "rejected_blocked_images": bad}


STAGE = RelationalStage(
    name="ingest_blocked_images",
    version=1,
    fn=ingest_blocked_images,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_BLOCKED_IMAGES,),
    outputs=(BLOCKED_IMAGES, REJECTED_BLOCKED_IMAGES),
)

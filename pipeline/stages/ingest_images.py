"""Images with a valid, unique identifier and a place or bytes (SPEC I1, I2).

Cost at 1.329 billion images: one shuffle by image_id to find doubled identifiers, one to the
aligned layout. Text and uri are about 0.5 TB; where the table carries bytes they travel too
(40 TB), so give uris at that size.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame

from pipeline.config.ingest import IngestParams
from pipeline.kernels.ingest import check_images
from pipeline.stages.arrow import check_rows
from pipeline.stages.stage import LedgerRule, RelationalStage, StageContext
from schemas.ingested import IMAGES, REJECTED_IMAGES
from schemas.inputs import SOURCE_IMAGES


def ingest_images(
    source_images: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Check rows image by image; of a doubled image_id the lowest content hash stays."""
    del params
    images, rejected = check_rows(source_images, "image_id", IMAGES, check_images, ctx)
    return {"images": images, "rejected_images": rejected}


STAGE = RelationalStage(
    name="ingest_images",
    version=2,
    fn=ingest_images,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_IMAGES,),
    outputs=(IMAGES, REJECTED_IMAGES),
    ledger=(LedgerRule("images", ("source_images",), ("images",), dropped=("rejected_images",)),),
)

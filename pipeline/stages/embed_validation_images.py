"""Visual embeddings of validation images, in the space of `image_embeddings`.

Two stages make the same tables, and a run has one of them. Where images are embedded here
(``STAGE``), every validation image is, with the same encoder: a given embedding may come from
another model, and a cosine between two models says nothing. Where image embeddings are given
(``GIVEN_STAGE``), only given ones fit; a validation image without one is set aside, and the
semantic tier cannot see it.

Cost: that of as many images in `embed_images`; evaluation sets are small beside the corpus.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.ingest import EmbedImagesParams, IngestParams
from pipeline.kernels.encode_images import ImageEncoder
from pipeline.kernels.reasons import RowReason
from pipeline.kernels.row_checks import REJECTED_SCHEMA
from pipeline.stages.embed_images import embed_rows, load_encoder
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import (
    REJECTED_VALIDATION_EMBEDDINGS,
    VALIDATION_EMBEDDINGS,
    VALIDATION_IMAGES,
)


def embed_validation_images(
    validation_images: pa.Table, state: ImageEncoder, params: EmbedImagesParams
) -> BatchResult:
    """Vectors of the images that decode, reasons of the others."""
    embedded, rejected = embed_rows(validation_images, "validation_id", state, params)
    return _result(embedded, rejected)


def take_validation_embeddings(
    validation_images: pa.Table, state: None, params: IngestParams
) -> BatchResult:
    """The given vectors; images without one are set aside."""
    del state, params
    is_given = pc.is_valid(validation_images.column("embedding"))
    missing = validation_images.filter(pc.invert(is_given)).column("validation_id")
    rejected = pa.table(
        [
            missing,
            pa.array([RowReason.NULL_VALUE.value] * len(missing), pa.string()),
            pa.array(["embedding"] * len(missing), pa.string()),
        ],
        schema=REJECTED_SCHEMA,
    )
    given = validation_images.filter(is_given).select(["validation_id", "embedding"])
    return _result(given, rejected)


def _result(embedded: pa.Table, rejected: pa.Table) -> BatchResult:
    return BatchResult(
        {"validation_embeddings": embedded, "rejected_validation_embeddings": rejected}
    )


_OUTPUTS = (VALIDATION_EMBEDDINGS, REJECTED_VALIDATION_EMBEDDINGS)
_LEDGER = (
    LedgerRule(
        "validation_images",
        ("validation_images",),
        ("validation_embeddings",),
        dropped=("rejected_validation_embeddings",),
    ),
)
STAGE = BatchwiseStage(
    name="embed_validation_images",
    version=1,
    kernel=embed_validation_images,
    prepare=load_encoder,
    params=EmbedImagesParams,
    section="embed_images",
    aligned=(VALIDATION_IMAGES,),
    outputs=_OUTPUTS,
    columns={"validation_images": ("validation_id", "uri", "bytes")},
    batch_rows=4096,
    ledger=_LEDGER,
)
GIVEN_STAGE = BatchwiseStage(
    name="take_validation_embeddings",
    version=1,
    kernel=take_validation_embeddings,
    params=IngestParams,
    section="ingest",
    aligned=(VALIDATION_IMAGES,),
    outputs=_OUTPUTS,
    columns={"validation_images": ("validation_id", "embedding")},
    ledger=_LEDGER,
)

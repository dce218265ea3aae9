"""Images of evaluation sets, keyed by ``dataset/image_id`` (SPEC I1, N6).

Cost: evaluation sets are small (the paper's have some 10^5 images); one shuffle.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.ingest import IngestParams
from pipeline.kernels.ingest import check_embeddings, check_images
from pipeline.kernels.row_checks import Checked, RowChecker, one_array
from pipeline.stages.arrow import check_rows
from pipeline.stages.ingest_embeddings import WIDTH, with_width
from pipeline.stages.stage import LedgerRule, RelationalStage, StageContext
from schemas.ingested import REJECTED_VALIDATION_IMAGES, VALIDATION_IMAGES
from schemas.inputs import SOURCE_VALIDATION_IMAGES


def ingest_validation_images(
    source_validation_images: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Check images as the corpus's are checked; a bad given embedding sets its row aside."""
    del params
    key = ("dataset", "image_id")
    dataset, image = (F.coalesce(F.col(c).cast("string"), F.lit("")) for c in key)
    name = F.concat(dataset, F.lit("/"), image)
    rows = with_width(source_validation_images).withColumn("validation_id", name)
    good, bad = check_rows(rows, "validation_id", VALIDATION_IMAGES, _check, ctx)
    return {"validation_images": good, "rejected_validation_images": bad}


def _check(rows: pa.Table) -> Checked:
    """Check rows as images whose identifier is ``validation_id``, then their embeddings."""
    checker = RowChecker(rows, "validation_id")
    checker.reject_bad_text("dataset", "image_id")
    checker.reject_empty("dataset", "image_id")
    checker.reject_duplicates("validation_id")
    rows = checker.finish().valid
    original = one_array(rows["image_id"])
    renamed = rows.drop_columns(["image_id"]).rename_columns({"validation_id": "image_id"})
    images = check_images(renamed)
    good = _rows_of(images.valid, renamed)
    given = rows["embedding"].take(pa.array(good))
    width = int(rows[WIDTH][0].as_py() or 0) if rows.num_rows else 0
    present = np.flatnonzero(pc.is_valid(one_array(given)).to_numpy(zero_copy_only=False))
    vectors = check_embeddings(
        pa.table(
            {
                "image_id": images.valid["image_id"].take(pa.array(present)),
                "embedding": given.take(pa.array(present)),
            }
        ),
        width,
    )
    known = pc.index_in(images.valid["image_id"], value_set=one_array(vectors.valid["image_id"]))
    bad = pc.is_in(images.valid["image_id"], value_set=one_array(vectors.rejected["row_key"]))
    embeddings = one_array(vectors.valid["embedding"].cast(pa.binary())).take(one_array(known))
    valid = pa.table(
        {
            "validation_id": images.valid["image_id"],
            "dataset": rows["dataset"].take(pa.array(good)),
            "image_id": original.take(pa.array(good)),
            "uri": images.valid["uri"],
            "bytes": images.valid["bytes"],
            "embedding": embeddings,
        }
    ).filter(pc.invert(bad))
    return Checked(valid, pa.concat_tables([checker.rejected(), images.rejected, vectors.rejected]))


def _rows_of(valid: pa.Table, given: pa.Table) -> np.ndarray:
    """Position in ``given`` of each valid row, by its identifier."""
    ids = one_array(given["image_id"]).cast(pa.binary())
    found = pc.index_in(one_array(valid["image_id"]).cast(pa.binary()), value_set=ids)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


STAGE = RelationalStage(
    name="ingest_validation_images",
    version=3,
    fn=ingest_validation_images,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_VALIDATION_IMAGES,),
    outputs=(VALIDATION_IMAGES, REJECTED_VALIDATION_IMAGES),
    ledger=(
        LedgerRule(
            "images",
            ("source_validation_images",),
            ("validation_images",),
            dropped=("rejected_validation_images",),
        ),
    ),
)

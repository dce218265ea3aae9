"""Precomputed embeddings as fixed-width bytes (SPEC I1, I2).

Cost at 1.329 billion images of 256 float32 (1.4 TB): one narrow scan of the lengths, one shuffle by
image_id, one to the aligned layout. Everything after reads them at 7 times the rate of lists.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config.ingest import IngestParams
from pipeline.kernels.ingest import check_embeddings
from pipeline.kernels.row_checks import Checked, one_array
from pipeline.kernels.vectors import from_matrix, l2_normalise, to_matrix
from pipeline.stages.arrow import check_rows
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.ingested import (
    IMAGE_EMBEDDINGS,
    REJECTED_IMAGE_EMBEDDINGS,
    REJECTED_TEXT_EMBEDDINGS,
    TERMS,
    TEXT_EMBEDDINGS,
)
from schemas.inputs import SOURCE_IMAGE_EMBEDDINGS, SOURCE_TERM_EMBEDDINGS

WIDTH = "_width"


def with_width(df: DataFrame) -> DataFrame:
    """Rows with the table's embedding length, the most common one (ties: the smaller)."""
    kind = df.schema["embedding"].dataType
    length = F.size(F.col("embedding"))
    if isinstance(kind, T.BinaryType):
        num_bytes = F.length("embedding")
        length = F.when(num_bytes % 4 == 0, num_bytes / 4).otherwise(0)
    lengths = df.where(F.col("embedding").isNotNull()).groupBy(length.cast("int").alias(WIDTH))
    counted = lengths.agg(F.count("*").alias("_n")).where(F.col(WIDTH) > 0)
    best = counted.orderBy(F.desc("_n"), WIDTH).limit(1).select(WIDTH)
    return df.join(F.broadcast(best), how="left", on=F.lit(True))


def _width_of(rows: pa.Table) -> int:
    """The length that :func:`with_width` found; 0 when no row has an embedding."""
    return int(rows[WIDTH][0].as_py() or 0)


def ingest_image_embeddings(
    source_image_embeddings: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Check lengths and values; of a doubled image_id the lowest content hash stays."""
    del params
    rows = with_width(source_image_embeddings)
    good, bad = check_rows(rows, "image_id", IMAGE_EMBEDDINGS, _check_images, ctx)
    return {"image_embeddings": good, "rejected_image_embeddings": bad}


def _check_images(rows: pa.Table) -> Checked:
    return check_embeddings(rows, _width_of(rows))


def ingest_term_embeddings(
    source_term_embeddings: DataFrame, terms: SmallTable, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Given embeddings by the text of their term, of unit length."""
    del params

    def check(rows: pa.Table) -> Checked:
        return _by_text(check_embeddings(rows, _width_of(rows), "term_id"), terms.read())

    rows = with_width(source_term_embeddings)
    good, bad = check_rows(rows, "term_id", TEXT_EMBEDDINGS, check, ctx, whole=True)
    return {"text_embeddings": good, "rejected_text_embeddings": bad}


def _by_text(checked: Checked, terms: pa.Table) -> Checked:
    """Replace term_id by text; of terms of one text the lowest term_id speaks."""
    vectors = checked.valid.set_column(
        0, "term_id", checked.valid["term_id"].cast(pa.int32())
    ).append_column("row", pa.array(range(checked.valid.num_rows), pa.int64()))
    texts = terms.select(["term_id", "text"])
    known = vectors.select(["term_id", "row"]).join(texts, "term_id", join_type="inner")
    ordered = known.sort_by([("text", "ascending"), ("term_id", "ascending")])
    names = one_array(ordered["text"])
    first = [i == 0 or names[i] != names[i - 1] for i in range(len(names))]
    chosen = ordered.filter(pa.array(first, pa.bool_()))
    matrix = to_matrix(one_array(vectors["embedding"]).take(one_array(chosen["row"])))
    used = set(chosen["row"].to_pylist())
    left = [t for r, t in enumerate(vectors["term_id"].to_pylist()) if r not in used]
    known_ids = set(texts["term_id"].to_pylist())
    unused = pa.table(
        {
            "row_key": pa.array(map(str, left), pa.string()),
            "reason": ["merged" if t in known_ids else "unknown_term" for t in left],
            "detail": pa.nulls(len(left), pa.string()),
        },
        schema=checked.rejected.schema,
    )
    valid = pa.table(
        {"text": chosen["text"], "embedding": from_matrix(l2_normalise(matrix)).cast(pa.binary())}
    )
    return Checked(valid, pa.concat_tables([checked.rejected, unused]))


IMAGES_STAGE = RelationalStage(
    name="ingest_image_embeddings",
    version=2,
    fn=ingest_image_embeddings,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_IMAGE_EMBEDDINGS,),
    outputs=(IMAGE_EMBEDDINGS, REJECTED_IMAGE_EMBEDDINGS),
    ledger=(
        LedgerRule(
            "images",
            ("source_image_embeddings",),
            ("image_embeddings",),
            dropped=("rejected_image_embeddings",),
        ),
    ),
)
TERMS_STAGE = RelationalStage(
    name="ingest_term_embeddings",
    version=2,
    fn=ingest_term_embeddings,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_TERM_EMBEDDINGS,),
    broadcast=(TERMS,),
    outputs=(TEXT_EMBEDDINGS, REJECTED_TEXT_EMBEDDINGS),
    ledger=(
        LedgerRule(
            "terms",
            ("source_term_embeddings",),
            ("text_embeddings",),
            dropped=("rejected_text_embeddings",),
        ),
    ),
)

"""The confidence of annotations that are read from text, calibrated without hand labels (SPEC I5).

How it is calibrated, and with what bias, is told in `pipeline.kernels.annotate_fit`: a candidate
that one field names counts as correct if an independent other field names it too. Cost at 1.329
billion images: a top-k for the sample (20,000 images), then one task, a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.ingest import PredictAnnotationsParams
from pipeline.kernels.align import positions_of
from pipeline.kernels.annotate_fit import fit_annotator as fit
from pipeline.kernels.hashing import hash64
from pipeline.kernels.lexicon import Candidates, build_lexicon, match_terms
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.text_agreement import text_agreement
from pipeline.kernels.vectors import to_matrix
from pipeline.stages.arrow import all_rows
from pipeline.stages.count_term_documents import FIELDS
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.ingested import ANNOTATOR_MODEL, IMAGES, TERM_DOCUMENTS, TERMS, TEXT_EMBEDDINGS
from schemas.labels import IMAGE_TEXT_EMBEDDINGS

STREAM = "fit_annotator"


def fit_annotator(
    images: DataFrame,
    image_text_embeddings: DataFrame,
    terms: SmallTable,
    term_documents: SmallTable,
    text_embeddings: SmallTable,
    params: PredictAnnotationsParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Fit on the images of lowest hash."""
    num_images = ctx.count(images)
    draw = F.xxhash64(F.lit(params.seed).cast("bigint"), F.lit(STREAM), F.col("image_id"))
    chosen = images.select("image_id", draw.alias("draw"))
    chosen = chosen.orderBy("draw", "image_id").limit(params.num_training_images)
    sample = images.select("image_id", *FIELDS).join(chosen, on="image_id", how="left_semi")
    sample = sample.join(image_text_embeddings, on="image_id", how="left")

    def train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            tables = (terms.read(), term_documents.read(), text_embeddings.read())
            yield from _fit(rows, *tables, num_images, params).to_batches()

    return {"annotator_model": sample.repartition(1).mapInArrow(train, ANNOTATOR_MODEL.ddl)}


def _fit(
    rows: pa.Table,
    terms: pa.Table,
    term_documents: pa.Table,
    text_embeddings: pa.Table,
    num_images: int,
    params: PredictAnnotationsParams,
) -> pa.Table:
    rows = rows.sort_by("image_id")
    lexicon = build_lexicon(terms["term_id"].to_numpy(), terms["text"].to_pylist())
    candidates = match_terms(rows, lexicon)
    frequency = np.zeros(len(lexicon.num_words_of), np.int64)
    frequency[term_documents["term_id"].to_numpy()] = term_documents["num_images"].to_numpy()
    model = fit(
        candidates,
        hash64(rows["image_id"], params.seed, STREAM),
        lexicon.num_words_of,
        frequency,
        num_images,
        agreement_of(candidates, rows["embedding"], term_vectors(terms, text_embeddings)),
        params.anchor_precision,
        params.anchor_share,
    )
    return model.to_table()


def term_vectors(terms: pa.Table, text_embeddings: pa.Table) -> NDArray[np.float32]:
    """Text embedding of every term by term_id, zero where there is none; float32 (T, d)."""
    vectors = to_matrix(one_array(text_embeddings["embedding"]))
    ids = terms["term_id"].to_numpy()
    at = positions_of(terms["text"], text_embeddings["text"])
    result = np.zeros((int(ids.max(initial=-1)) + 1, vectors.shape[1]), np.float32)
    result[ids[at >= 0]] = vectors[at[at >= 0]]
    return result


def agreement_of(
    candidates: Candidates, texts: pa.ChunkedArray | pa.Array, of_term: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Cosine of each candidate's term with its image's text.

    Args:
        candidates: matches of a batch of n images.
        texts: vector column of n rows, null where unknown.
        of_term: float32 (T, d).

    Returns:
        float32 (candidates,), NaN where unknown; None where term and text embeddings have other
        widths, because they come from different models then.
    """
    column = one_array(texts)
    known = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    if len(known) == 0:
        return None
    vectors = to_matrix(column.take(pa.array(known)))
    if vectors.shape[1] != of_term.shape[1]:
        return None
    of_text = np.zeros((len(column), vectors.shape[1]), np.float32)
    of_text[known] = vectors
    return text_agreement(candidates, of_term, of_text)


STAGE = RelationalStage(
    name="fit_annotator",
    version=1,
    fn=fit_annotator,
    params=PredictAnnotationsParams,
    section="predict_annotations",
    inputs=(IMAGES, IMAGE_TEXT_EMBEDDINGS),
    broadcast=(TERMS, TERM_DOCUMENTS, TEXT_EMBEDDINGS),
    outputs=(ANNOTATOR_MODEL,),
)

"""Annotations with confidence from titles, descriptions and tags alone (SPEC I5; beyond the paper).

For those who have no keyword prediction model: dictionary n-grams of each text field, scored by a
model over field, rarity, length and agreement with the whole text. The model is calibrated by
held-out field agreement: see `pipeline.kernels.annotate_fit`. Cost at 1.329 billion images: one
narrow pass over the texts and their embeddings, some 15 core-hours, no shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.ingest import PredictAnnotationsParams
from pipeline.kernels.align import positions_of, take_or_null
from pipeline.kernels.annotate import AnnotatorModel, score_candidates, to_nested
from pipeline.kernels.lexicon import Lexicon, build_lexicon, match_terms
from pipeline.stages.count_term_documents import FIELDS
from pipeline.stages.fit_annotator import agreement_of, term_vectors
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import ANNOTATIONS, ANNOTATOR_MODEL, IMAGES, TERMS, TEXT_EMBEDDINGS
from schemas.labels import IMAGE_TEXT_EMBEDDINGS


@dataclass(frozen=True)
class AnnotatorState:
    """What every batch needs: the dictionary, the model, the terms' embeddings."""

    lexicon: Lexicon
    model: AnnotatorModel
    vectors: NDArray[np.float32]


def prepare(
    terms: pa.Table,
    annotator_model: pa.Table,
    text_embeddings: pa.Table,
    params: PredictAnnotationsParams,
) -> AnnotatorState:
    """Build the lexicon, read the model."""
    del params
    lexicon = build_lexicon(terms["term_id"].to_numpy(), terms["text"].to_pylist())
    model = AnnotatorModel.from_table(annotator_model)
    return AnnotatorState(lexicon, model, term_vectors(terms, text_embeddings))


def predict_batch(
    images: pa.Table,
    image_text_embeddings: pa.Table,
    state: AnnotatorState,
    params: PredictAnnotationsParams,
) -> BatchResult:
    """Match, score, keep what reaches the least score."""
    found = match_terms(images.select(list(FIELDS)), state.lexicon)
    at = positions_of(images["image_id"], image_text_embeddings["image_id"])
    texts = take_or_null(image_text_embeddings["embedding"], at)
    agreement = agreement_of(found, texts, state.vectors)
    scores = score_candidates(state.model, found, state.lexicon.num_words_of, agreement)
    kept = scores >= params.min_score
    nested = to_nested(found.row[kept], found.term_id[kept], scores[kept], images.num_rows)
    rows = pa.table({"image_id": images["image_id"], "annotations": nested})
    counts = {
        "candidates.found": len(scores),
        "candidates.dropped.low_score": int((~kept).sum()),
    }
    return BatchResult({"annotations": rows}, counts)


STAGE = BatchwiseStage(
    name="predict_annotations",
    version=1,
    kernel=predict_batch,
    prepare=prepare,
    params=PredictAnnotationsParams,
    aligned=(IMAGES, IMAGE_TEXT_EMBEDDINGS),
    broadcast=(TERMS, ANNOTATOR_MODEL, TEXT_EMBEDDINGS),
    columns={"images": ("image_id", *FIELDS)},
    outputs=(ANNOTATIONS,),
    batch_rows=16_384,
    ledger=(
        LedgerRule("images", ("images",), ("annotations",)),
        LedgerRule(
            "candidates",
            ("#candidates.found",),
            ("annotations.annotations",),
            dropped_counts="candidates.dropped.",
        ),
    ),
)

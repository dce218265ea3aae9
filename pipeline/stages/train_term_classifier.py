"""The classifier from text embeddings to L1 interests, trained on seed terms (SPEC L2, L4).

Cost at 1.329 billion images: does not depend on them; at most ``max_seeds`` seeds (5,786
packaged ones), one task, under a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from pipeline.config.labels import ClassifyTermsParams
from pipeline.kernels.hashing import hash64
from pipeline.kernels.interests import InterestSettings, fit
from pipeline.kernels.vectors import to_matrix
from pipeline.stages.arrow import all_rows, with_null_row
from pipeline.stages.interest_model import (
    MODEL,
    group_codes,
    has_interests,
    model_batch,
    report_of,
    seed_vectors,
)
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.ingested import INTEREST_SEEDS, INTERESTS, TEXT_EMBEDDINGS
from schemas.labels import TERM_INTEREST_MODEL, TERM_INTEREST_REPORT

DRAW = "interest_seeds"
"""Stream of the draw of seeds."""


def train_term_classifier(
    interest_seeds: DataFrame,
    interests: SmallTable,
    text_embeddings: SmallTable,
    params: ClassifyTermsParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Fit on embeddings of the seed texts; forms of a word, words of a node stay in one fold."""

    def train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            rows = rows.filter(pc.is_valid(rows["text"]))
            yield fit_seeds(rows, interests.read(), text_embeddings.read(), params)

    model = ctx.materialise(with_null_row(interest_seeds).repartition(1).mapInArrow(train, MODEL))
    return {"term_interest_model": model, "term_interest_report": report_of(model)}


def fit_seeds(
    seeds: pa.Table, interests: pa.Table, embeddings: pa.Table, params: ClassifyTermsParams
) -> pa.RecordBatch:
    """The model of the seeds, or of ``max_seeds`` of them, as the row of its table."""
    if seeds.num_rows > params.max_seeds:
        draw = hash64(seeds["text"], params.seed, DRAW)
        seeds = seeds.take(pa.array(np.argsort(draw, kind="stable")[: params.max_seeds]))
    seeds, vectors = seed_vectors(seeds, embeddings)
    names = tuple(interests["l1_interest"].to_pylist())
    settings = InterestSettings(
        params.num_folds,
        params.regularisation,
        params.calibration,
        params.max_iterations,
        params.seed,
        params.gamma,
    )
    model = fit(
        np.arange(seeds.num_rows),
        to_matrix(vectors),
        has_interests(seeds["l1_interests"], names),
        group_codes(seeds["text"].to_pylist(), seeds["source_nodes"].to_pylist()),
        names,
        settings,
    )
    return model_batch("terms", model)


STAGE = RelationalStage(
    name="train_term_classifier",
    version=2,
    fn=train_term_classifier,
    params=ClassifyTermsParams,
    section="classify_terms",
    inputs=(INTEREST_SEEDS,),
    broadcast=(INTERESTS, TEXT_EMBEDDINGS),
    outputs=(TERM_INTEREST_MODEL, TERM_INTEREST_REPORT),
)

"""The classifier from an image's text and interactions to L1 interests (SPEC L3, L4).

Trained on labelled images where they are given, else on the seed terms: a seed's embedding then
stands for an image whose whole text it is. Cost at 1.329 billion images: seeds only, at most
``max_seeds``, joined with their embeddings; one task, minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.labels import ClassifyImagesParams
from pipeline.kernels.interests import InterestSettings, fit
from pipeline.kernels.row_checks import one_array
from pipeline.stages.arrow import all_rows, with_null_row
from pipeline.stages.classify_images import features_of
from pipeline.stages.interest_model import (
    MODEL,
    group_codes,
    has_interests,
    model_batch,
    report_of,
    seed_vectors,
)
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.ingested import (
    IMAGE_INTERACTIONS,
    IMAGE_INTEREST_SEEDS,
    INTEREST_SEEDS,
    INTERESTS,
    TEXT_EMBEDDINGS,
)
from schemas.labels import IMAGE_INTEREST_MODEL, IMAGE_INTEREST_REPORT, IMAGE_TEXT_EMBEDDINGS

SEEDS = "image_interest_seeds"
"""Stream of the draw of seeds."""


def train_image_classifier(
    image_text_embeddings: DataFrame,
    image_interest_seeds: DataFrame | None,
    image_interactions: DataFrame | None,
    interests: SmallTable,
    interest_seeds: SmallTable,
    text_embeddings: SmallTable,
    params: ClassifyImagesParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Fit on labelled images, or on seed terms without any."""
    if image_interest_seeds is None:
        rows = image_text_embeddings.limit(0).withColumn(
            "l1_interests", F.array().cast("array<string>")
        )
    else:
        draw = F.xxhash64(F.lit(params.seed).cast("bigint"), F.lit(SEEDS), F.col("image_id"))
        seeds = image_interest_seeds.orderBy(draw, "image_id").limit(params.max_seeds)
        rows = image_text_embeddings.join(seeds, on="image_id", how="inner")
    if image_interactions is not None:
        rows = rows.join(image_interactions, on="image_id", how="left")

    def train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = tuple(interests.read()["l1_interest"].to_pylist())
        for seeds in all_rows(batches):
            seeds = seeds.filter(pc.is_valid(seeds["image_id"]))
            if seeds.num_rows:
                yield _fit_images(seeds, names, params)
            else:
                yield _fit_terms(interest_seeds.read(), text_embeddings.read(), names, params)

    one = with_null_row(rows).repartition(1)
    model = ctx.materialise(one.mapInArrow(train, MODEL))
    return {"image_interest_model": model, "image_interest_report": report_of(model)}


def _settings(params: ClassifyImagesParams) -> InterestSettings:
    return InterestSettings(
        params.num_folds,
        params.regularisation,
        params.calibration,
        params.max_iterations,
        params.seed,
    )


def _fit_images(
    rows: pa.Table, names: tuple[str, ...], params: ClassifyImagesParams
) -> pa.RecordBatch:
    """Images of one text stay in one fold."""
    rows = rows.sort_by("image_id")
    interactions = rows["interactions"] if "interactions" in rows.column_names else None
    features = features_of(rows["embedding"], interactions, names)
    texts = one_array(rows["embedding"]).cast(pa.binary()).dictionary_encode().indices
    model = fit(
        np.arange(rows.num_rows),
        features,
        has_interests(rows["l1_interests"], names),
        texts.to_numpy().astype(np.int64),
        names,
        _settings(params),
    )
    return model_batch("images", model)


def _fit_terms(
    seeds: pa.Table, embeddings: pa.Table, names: tuple[str, ...], params: ClassifyImagesParams
) -> pa.RecordBatch:
    seeds, vectors = seed_vectors(seeds, embeddings)
    model = fit(
        np.arange(seeds.num_rows),
        features_of(vectors, None, names),
        has_interests(seeds["l1_interests"], names),
        group_codes(seeds["text"].to_pylist(), seeds["source_nodes"].to_pylist()),
        names,
        _settings(params),
    )
    return model_batch("images", model)


STAGE = RelationalStage(
    name="train_image_classifier",
    version=2,
    fn=train_image_classifier,
    params=ClassifyImagesParams,
    section="classify_images",
    inputs=(IMAGE_TEXT_EMBEDDINGS, IMAGE_INTEREST_SEEDS, IMAGE_INTERACTIONS),
    broadcast=(INTERESTS, INTEREST_SEEDS, TEXT_EMBEDDINGS),
    optional=(IMAGE_INTEREST_SEEDS, IMAGE_INTERACTIONS),
    outputs=(IMAGE_INTEREST_MODEL, IMAGE_INTEREST_REPORT),
)

"""The model that verifies near-duplicates: the given one for the run's embeddings (SPEC N7).

Cosines of another encoder have another scale. Where the run computes its embeddings, the model
fitted on that encoder is taken; where they are given, nobody knows their encoder, and the model
that reads no cosine is. One model alone is taken as it stands. The model is a table, so its content
is in the version of whatever it decides. Cost: one task, some kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
from pyspark.sql import DataFrame

from pipeline.config.ingest import EmbedImagesParams, IngestParams
from pipeline.kernels.pair_model import PairModel, choose_model
from pipeline.stages.arrow import all_rows
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.images import PAIR_MODELS
from schemas.inputs import SOURCE_PAIR_MODELS


def choose_for_own(
    source_pair_models: DataFrame, params: EmbedImagesParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """The model for the encoder that embeds the run's images."""
    del ctx
    return {"pair_models": _chosen(source_pair_models, params.model)}


def choose_for_given(
    source_pair_models: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """The model for embeddings that are given."""
    del params, ctx
    return {"pair_models": _chosen(source_pair_models, "")}


def model_of(pair_models: SmallTable) -> PairModel:
    """The chosen model."""
    return PairModel.from_json(pair_models.read()["model"][0].as_py())


def _chosen(source: DataFrame, encoder: str) -> DataFrame:
    def choose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        lines: list[str] = []
        for rows in all_rows(batches):
            lines += [line for line in rows["model"].to_pylist() if line and line.strip()]
        model = choose_model([PairModel.from_json(line) for line in sorted(lines)], encoder)
        yield pa.RecordBatch.from_arrays(
            [pa.array([model.encoder]), pa.array([model.to_json()])], PAIR_MODELS.column_names
        )

    return source.repartition(1).mapInArrow(choose, PAIR_MODELS.ddl)


STAGE = RelationalStage(
    name="choose_pair_model",
    version=1,
    fn=choose_for_own,
    params=EmbedImagesParams,
    section="embed_images",
    inputs=(SOURCE_PAIR_MODELS,),
    outputs=(PAIR_MODELS,),
)
GIVEN_STAGE = RelationalStage(
    name="take_pair_model",
    version=1,
    fn=choose_for_given,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_PAIR_MODELS,),
    outputs=(PAIR_MODELS,),
)

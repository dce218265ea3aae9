"""Coarse cells of the semantic search: centroids of a sample of the embeddings (SPEC N2).

Cost at 1.329 billion images: one narrow scan for the sample's identifiers, a top-k, one join of the
sample (77,000 cells, 64 images each: 5 GB of 256 float32); k-means in one task on all its cores, a
quarter of an hour of 16.

Any change of the images draws another sample and moves every cell, and with it what the search
finds at recall below 1. So training is the default only while a corpus is made: where batches are
added to one, ``near_duplicates.cells_version`` names the version whose centroids stay. They grow
fuller with the corpus, by what the log compares them with; recall is not lower for it, because an
image is compared with more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.cell_training import train_centroids
from pipeline.kernels.cells import num_cells_for
from pipeline.kernels.hashing import hash64
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import from_matrix, l2_normalise, to_matrix
from pipeline.stages.arrow import all_rows
from pipeline.stages.stage import RelationalStage, StageContext
from schemas.images import EMBEDDING_CELLS
from schemas.ingested import IMAGE_EMBEDDINGS

logger = logging.getLogger(__name__)

STREAM = "train_cells"


def train_cells(
    image_embeddings: DataFrame, params: NearDuplicateParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Train on the images of lowest hash, as many cells as balance assignment and comparison; or
    keep the centroids of an earlier version."""
    num_images = ctx.count(image_embeddings) if params.semantic else 0
    num_cells = num_cells_for(max(num_images, 1), params.num_probes)
    if params.semantic and params.cells_version is not None:
        kept = ctx.output_of(params.cells_version, EMBEDDING_CELLS.name)
        fields = {"cells": ctx.count(kept), "cells_of_a_new_training": num_cells}
        logger.info("cells_kept", extra={"fields": fields})
        return {"embedding_cells": kept}
    draw = F.xxhash64(F.lit(params.seed).cast("bigint"), F.lit(STREAM), F.col("image_id"))
    order = (draw.alias("draw"), "image_id")
    size = num_cells * params.samples_per_cell if params.semantic else 0
    chosen = image_embeddings.select(*order).orderBy("draw", "image_id").limit(size)
    sample = image_embeddings.join(chosen.select("image_id"), on="image_id", how="inner")

    def train(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            yield _centroids(rows, num_cells, params.seed)

    columns = sample.select("image_id", "embedding").repartition(1)
    return {"embedding_cells": columns.mapInArrow(train, EMBEDDING_CELLS.ddl)}


def _centroids(rows: pa.Table, num_cells: int, seed: int) -> pa.RecordBatch:
    """Centroids of the sample in the order of its hashes; zero vectors take no part."""
    ids = one_array(rows["image_id"])
    draws = pa.table({"draw": hash64(ids, seed, STREAM), "image_id": ids})
    order = pc.sort_indices(draws, sort_keys=[("draw", "ascending"), ("image_id", "ascending")])
    vectors = l2_normalise(to_matrix(one_array(rows["embedding"]))[order.to_numpy()])
    vectors = vectors[np.any(vectors != 0, axis=1)]
    found = train_centroids(vectors, num_cells, seed=seed) if len(vectors) else vectors
    numbers = pa.array(np.arange(len(found), dtype=np.int32))
    return pa.RecordBatch.from_arrays(
        [numbers, from_matrix(found).cast(pa.binary())], EMBEDDING_CELLS.column_names
    )


STAGE = RelationalStage(
    name="train_cells",
    version=2,
    fn=train_cells,
    params=NearDuplicateParams,
    section="near_duplicates",
    inputs=(IMAGE_EMBEDDINGS,),
    outputs=(EMBEDDING_CELLS,),
)

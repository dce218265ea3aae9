"""How many images' texts name each term (SPEC I5).

Cost at 1.329 billion images: one narrow pass over the texts, 10 core-hours, reduced to a row a term
and task before the only shuffle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.ingest import PredictAnnotationsParams
from pipeline.kernels.lexicon import build_lexicon, document_frequency, match_terms
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.ingested import IMAGES, TERM_DOCUMENTS, TERMS

FIELDS = ("title", "description", "tags")
"""Columns of an image that are read for terms."""


def count_term_documents(
    images: DataFrame, terms: SmallTable, params: PredictAnnotationsParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Sum the counts of the tasks."""
    del params, ctx

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        table = terms.read()
        lexicon = build_lexicon(table["term_id"].to_numpy(), table["text"].to_pylist())
        total = np.zeros(len(lexicon.num_words_of), np.int64)
        for batch in batches:
            found = match_terms(pa.Table.from_batches([batch]), lexicon)
            total += document_frequency(found, len(total))
        named = np.flatnonzero(total)
        arrays = [pa.array(named, pa.int32()), pa.array(total[named], pa.int64())]
        yield pa.RecordBatch.from_arrays(arrays, TERM_DOCUMENTS.column_names)

    parts = images.select(*FIELDS).mapInArrow(count, TERM_DOCUMENTS.ddl)
    return {"term_documents": parts.groupBy("term_id").agg(F.sum("num_images").alias("num_images"))}


STAGE = RelationalStage(
    name="count_term_documents",
    version=1,
    fn=count_term_documents,
    params=PredictAnnotationsParams,
    section="predict_annotations",
    inputs=(IMAGES,),
    broadcast=(TERMS,),
    outputs=(TERM_DOCUMENTS,),
)

"""Annotations of either form as nested, dictionary-encoded ones (SPEC I1, I2).

Cost at 1.329 billion images: the long form's 13 billion rows are shuffled once by image_id (about
0.4 TB compressed) and nested rows once to the aligned layout; texts are looked up in a dictionary
that every worker holds (218,879 terms, about 20 MB). Every later pass reads the nested form.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from pipeline.config.ingest import IngestParams
from pipeline.kernels.ingest import (
    CheckedNested,
    TermIndex,
    check_annotations_long,
    check_annotations_nested,
)
from pipeline.kernels.row_checks import Checked
from pipeline.stages.arrow import check_nested, check_rows
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.ingested import (
    ANNOTATIONS,
    REJECTED_ANNOTATED_IMAGES,
    REJECTED_ANNOTATIONS,
    TERMS,
)
from schemas.inputs import SOURCE_ANNOTATIONS_LONG, SOURCE_ANNOTATIONS_NESTED


def ingest_long(
    source_annotations_long: DataFrame, terms: SmallTable, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Look texts up, keep the best score of doubled terms, gather by image."""
    check = functools.partial(_check_long, terms=terms, language=params.language)
    rows = source_annotations_long
    annotations, rejected = check_rows(rows, "image_id", ANNOTATIONS, check, ctx)
    return {"annotations": annotations, "rejected_annotations": rejected}


def ingest_nested(
    source_annotations_nested: DataFrame,
    terms: SmallTable,
    params: IngestParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Check images, then their items one by one."""
    del params
    rows, check = source_annotations_nested, functools.partial(_check_nested, terms=terms)
    annotations, rejected, rejected_rows = check_nested(rows, "image_id", ANNOTATIONS, check, ctx)
    return {
        "annotations": annotations,
        "rejected_annotations": rejected,
        "rejected_annotated_images": rejected_rows,
    }


def _check_long(rows: pa.Table, terms: SmallTable, language: str) -> Checked:
    return check_annotations_long(rows, TermIndex(terms.read(), language))


def _check_nested(rows: pa.Table, terms: SmallTable) -> CheckedNested:
    ids = terms.read()["term_id"].to_numpy()
    is_known = np.zeros(int(ids.max(initial=-1)) + 1, bool)
    is_known[ids] = True
    return check_annotations_nested(rows, is_known)


LONG = RelationalStage(
    name="ingest_annotations",
    version=1,
    fn=ingest_long,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_ANNOTATIONS_LONG,),
    broadcast=(TERMS,),
    outputs=(ANNOTATIONS, REJECTED_ANNOTATIONS),
    ledger=(
        LedgerRule(
            "annotations",
            ("source_annotations_long",),
            ("annotations.annotations",),
            dropped=("rejected_annotations",),
        ),
    ),
)
NESTED = RelationalStage(
    name="ingest_annotations",
    version=1,
    fn=ingest_nested,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_ANNOTATIONS_NESTED,),
    broadcast=(TERMS,),
    outputs=(ANNOTATIONS, REJECTED_ANNOTATIONS, REJECTED_ANNOTATED_IMAGES),
    ledger=(
        LedgerRule(
            "annotations",
            ("source_annotations_nested.annotations",),
            ("annotations.annotations",),
            dropped=("rejected_annotations",),
        ),
        LedgerRule(
            "images",
            ("source_annotations_nested",),
            ("annotations",),
            dropped=("rejected_annotated_images",),
        ),
    ),
)
STAGE = LONG

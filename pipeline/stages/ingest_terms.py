"""The term dictionary: texts normalised, aliases resolved, sensitivity spread (SPEC I1-I3).

Cost at 1.329 billion images: the dictionary's 218,879 rows in one task, about a minute.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pyarrow as pa
from pyspark.sql import DataFrame

from pipeline.config.ingest import IngestParams
from pipeline.files.storage import open_storage
from pipeline.kernels.ingest_terms import check_terms
from pipeline.kernels.row_checks import Checked
from pipeline.stages.arrow import check_rows
from pipeline.stages.stage import LedgerRule, RelationalStage, StageContext
from schemas.ingested import REJECTED_TERMS, TERMS
from schemas.inputs import SOURCE_TERMS


def ingest_terms(
    source_terms: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Check the dictionary as one whole, since aliases refer to other rows."""
    check = functools.partial(_check, params=params)
    terms, rejected = check_rows(source_terms, "term_id", TERMS, check, ctx, whole=True)
    return {"terms": terms, "rejected_terms": rejected}


def _check(rows: pa.Table, params: IngestParams) -> Checked:
    return check_terms(rows, _sensitive(params.sensitive_list), params.language)


def _sensitive(path: str | None) -> list[str]:
    if path is None:
        return []
    folder, _, name = path.rpartition("/")
    text = open_storage(folder or ".").read_bytes(name).decode()
    return [line.strip() for line in text.splitlines() if line.strip()]


STAGE = RelationalStage(
    name="ingest_terms",
    version=1,
    fn=ingest_terms,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_TERMS,),
    outputs=(TERMS, REJECTED_TERMS),
    ledger=(LedgerRule("terms", ("source_terms",), ("terms",), dropped=("rejected_terms",)),),
)

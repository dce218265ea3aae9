"""The taxonomy, its seeds, and interests that are given (SPEC L1-L4, I2).

Cost at 1.329 billion images: seeds and terms are small and take one task; given interests and
interactions of images are one shuffle by image_id and one to the aligned layout.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.ingest import IngestParams
from pipeline.kernels.ingest_interests import (
    check_interactions,
    check_interest_seeds,
    check_interests,
)
from pipeline.kernels.row_checks import Checked, one_array
from pipeline.stages.arrow import check_rows
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.contract import Table
from schemas.ingested import (
    IMAGE_INTERACTIONS,
    IMAGE_INTEREST_SEEDS,
    INTEREST_SEEDS,
    INTERESTS,
    REJECTED_IMAGE_INTERACTIONS,
    REJECTED_IMAGE_INTEREST_SEEDS,
    REJECTED_IMAGE_INTERESTS,
    REJECTED_INTEREST_SEEDS,
    REJECTED_TERM_INTERESTS,
)
from schemas.inputs import (
    SOURCE_IMAGE_INTERACTIONS,
    SOURCE_IMAGE_INTEREST_SEEDS,
    SOURCE_IMAGE_INTERESTS,
    SOURCE_INTEREST_SEEDS,
    SOURCE_TAXONOMY,
    SOURCE_TERM_INTERESTS,
)
from schemas.labels import IMAGE_INTERESTS, TERM_INTERESTS

StageFunction = Callable[..., Mapping[str, DataFrame]]


def ingest_taxonomy(
    source_taxonomy: DataFrame, params: IngestParams, ctx: StageContext
) -> Mapping[str, DataFrame]:
    """Names of the interests, without blanks and repeats."""
    del params, ctx
    name = F.trim(F.col("l1_interest")).alias("l1_interest")
    names = source_taxonomy.select(name).where(F.length("l1_interest") > 0)
    return {"interests": names.distinct()}


def ingest_interest_seeds(
    source_interest_seeds: DataFrame,
    interests: SmallTable,
    params: IngestParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Seed texts with their interests and source nodes."""
    del params

    def check(rows: pa.Table) -> Checked:
        return check_interest_seeds(rows, interests.read()["l1_interest"].to_pylist())

    rows = source_interest_seeds
    good, bad = check_rows(rows, "text", INTEREST_SEEDS, check, ctx, whole=True)
    return {"interest_seeds": good, "rejected_interest_seeds": bad}


def ingest_image_interest_seeds(
    source_image_interest_seeds: DataFrame,
    interests: SmallTable,
    params: IngestParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Seed images with their interests."""
    del params
    rows, tables = (
        source_image_interest_seeds,
        (IMAGE_INTEREST_SEEDS, REJECTED_IMAGE_INTEREST_SEEDS),
    )
    return _lists(rows, "image_id", *tables, interests, ctx)


def ingest_image_interests(
    source_image_interests: DataFrame,
    interests: SmallTable,
    params: IngestParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Given interests of images, in place of the classifier."""
    del params
    tables = (IMAGE_INTERESTS, REJECTED_IMAGE_INTERESTS)
    return _lists(source_image_interests, "image_id", *tables, interests, ctx)


def ingest_term_interests(
    source_term_interests: DataFrame,
    interests: SmallTable,
    params: IngestParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Given interests of terms, in place of the classifier; each counts with probability 1."""
    del params
    check = functools.partial(_check_term_interests, interests=interests)
    rows = source_term_interests
    good, bad = check_rows(rows, "term_id", TERM_INTERESTS, check, ctx, whole=True)
    return {"term_interests": good, "rejected_term_interests": bad}


def ingest_image_interactions(
    source_image_interactions: DataFrame,
    interests: SmallTable,
    params: IngestParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Interaction counts by image and interest."""
    del params

    def check(rows: pa.Table) -> Checked:
        return check_interactions(rows, interests.read()["l1_interest"].to_pylist())

    rows = source_image_interactions
    good, bad = check_rows(rows, "image_id", IMAGE_INTERACTIONS, check, ctx)
    return {"image_interactions": good, "rejected_image_interactions": bad}


def _lists(
    rows: DataFrame,
    key: str,
    valid: Table,
    rejected: Table,
    interests: SmallTable,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    check = functools.partial(_check_lists, key=key, interests=interests)
    good, bad = check_rows(rows, key, valid, check, ctx, whole=valid.layout == "single")
    return {valid.name: good, rejected.name: bad}


def _check_lists(rows: pa.Table, key: str, interests: SmallTable) -> Checked:
    return check_interests(rows, key, interests.read()["l1_interest"].to_pylist())


def _check_term_interests(rows: pa.Table, interests: SmallTable) -> Checked:
    checked = _check_lists(rows, "term_id", interests)
    lists = one_array(checked.valid["l1_interests"])
    ids = one_array(checked.valid["term_id"]).take(pc.list_parent_indices(lists))
    names = pc.list_flatten(lists)
    ones = pa.array([1.0] * len(names), pa.float32())
    long = pa.table({"term_id": ids, "l1_interest": names, "probability": ones})
    return Checked(long, checked.rejected)


def _rule(name: str, out: str) -> LedgerRule:
    return LedgerRule("interests", (f"source_{name}",), (out,), dropped=(f"rejected_{name}",))


def _stage(
    fn: StageFunction, source: Table, valid: Table, rejected: Table, out: str, version: int = 1
) -> RelationalStage:
    name = source.name.removeprefix("source_")
    return RelationalStage(
        name=fn.__name__,
        version=version,
        fn=fn,
        params=IngestParams,
        section="ingest",
        inputs=(source,),
        broadcast=(INTERESTS,),
        outputs=(valid, rejected),
        ledger=(_rule(name, out),),
    )


TAXONOMY_STAGE = RelationalStage(
    name="ingest_taxonomy",
    version=1,
    fn=ingest_taxonomy,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_TAXONOMY,),
    outputs=(INTERESTS,),
)
SEEDS_STAGE = _stage(
    ingest_interest_seeds,
    SOURCE_INTEREST_SEEDS,
    INTEREST_SEEDS,
    REJECTED_INTEREST_SEEDS,
    "interest_seeds.l1_interests",
    version=2,
)
IMAGE_SEEDS_STAGE = _stage(
    ingest_image_interest_seeds,
    SOURCE_IMAGE_INTEREST_SEEDS,
    IMAGE_INTEREST_SEEDS,
    REJECTED_IMAGE_INTEREST_SEEDS,
    "image_interest_seeds.l1_interests",
)
IMAGE_INTERESTS_STAGE = _stage(
    ingest_image_interests,
    SOURCE_IMAGE_INTERESTS,
    IMAGE_INTERESTS,
    REJECTED_IMAGE_INTERESTS,
    "image_interests.l1_interests",
)
TERM_INTERESTS_STAGE = _stage(
    ingest_term_interests,
    SOURCE_TERM_INTERESTS,
    TERM_INTERESTS,
    REJECTED_TERM_INTERESTS,
    "term_interests",
)
INTERACTIONS_STAGE = _stage(
    ingest_image_interactions,
    SOURCE_IMAGE_INTERACTIONS,
    IMAGE_INTERACTIONS,
    REJECTED_IMAGE_INTERACTIONS,
    "image_interactions.interactions",
)

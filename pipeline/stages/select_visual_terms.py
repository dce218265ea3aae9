"""The visual dictionary: terms not below the decision boundary (paper section 3.2.1, Figure 3).

Cost at 1.329 billion images: the dictionary's 218,879 rows, seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.labels import SelectVisualTermsParams
from pipeline.stages.stage import LedgerRule, RelationalStage, StageContext
from schemas.ingested import TERMS
from schemas.labels import DROPPED_TERMS, TERM_CONCRETENESS, VISUAL_TERMS


def select_visual_terms(
    terms: DataFrame,
    term_concreteness: DataFrame,
    params: SelectVisualTermsParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Keep canonical, non-sensitive terms whose concreteness (or bound) reaches the boundary."""
    del ctx
    scored = terms.join(term_concreteness, on="term_id", how="left")
    measure = F.col("wilson_lower" if params.use_lower_bound else "concreteness")
    is_scored = F.coalesce(F.col("status") == "ok", F.lit(False))
    reason = (
        F.when(F.col("canonical_term_id") != F.col("term_id"), "alias")
        .when(F.col("is_sensitive"), "sensitive")
        .when(F.lit(not params.restrict), F.lit(None))
        .when(~is_scored & F.lit(params.keep_unscored), F.lit(None))
        .when(F.col("status").isNull(), "no_positives")
        .when(~is_scored, F.col("status"))
        .when(measure < F.lit(params.boundary), "below_boundary")
    )
    judged = scored.withColumn("reason", reason)
    num_positives = F.coalesce("num_positives", F.lit(0)).alias("num_positives")
    return {
        "visual_terms": judged.where(F.col("reason").isNull()).select(
            "term_id", "concreteness", num_positives
        ),
        "dropped_terms": judged.where(F.col("reason").isNotNull()).select("term_id", "reason"),
    }


STAGE = RelationalStage(
    name="select_visual_terms",
    version=1,
    fn=select_visual_terms,
    params=SelectVisualTermsParams,
    inputs=(TERMS, TERM_CONCRETENESS),
    outputs=(VISUAL_TERMS, DROPPED_TERMS),
    ledger=(LedgerRule("terms", ("terms",), ("visual_terms",), dropped=("dropped_terms",)),),
)

"""Candidates that a model takes for one picture, and those it rejects (SPEC N7).

Exact duplicates need no look. Of every other pair the stored thumbnails are laid on each other
(``kernels.pair_signals``), once whatever the number of tiers that proposed it.

Cost at 1.329 billion images and 5 candidates an image: thumbnails and embeddings (5 KB an image)
are shuffled once by image_id (7 TB) and meet the pairs of the greater identifier; then 5 KB a pair
(33 TB) are shuffled to the smaller identifier, where the same shuffled rows serve again: a
thumbnail moves once an image and once a pair, never twice a pair. 2.6 ms a pair and core: 4,800
core-hours. A task holds an Arrow batch and 128 MiB of scratch. ``verify.max_candidates`` is the
handle on all of it. A run that finds an earlier one on its root judges only pairs with a picture
that is new or changed, and those it did not have (``known_judgements``): of a batch of 10 million
images some 5 x 10^7 pairs, 36 core-hours, beside the shuffle of all thumbnails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.pair_model import PairModel
from pipeline.kernels.pair_verifier import PairRule, as_thumbnails
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.turned_hashes import turned_distance, turned_hashes
from pipeline.kernels.vectors import l2_normalise, row_products, to_matrix
from pipeline.stages.choose_pair_model import model_of
from pipeline.stages.known_judgements import known_judgements
from pipeline.stages.pair_candidates import PAIR
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.images import (
    IMAGE_FINGERPRINTS,
    NEAR_DUPLICATE_CANDIDATES,
    NEAR_DUPLICATE_PAIRS,
    PAIR_MODELS,
    REJECTED_PAIRS,
)
from schemas.ingested import IMAGE_EMBEDDINGS

IMPROBABLE = "improbable"
"""Reason of a rejected candidate."""
_PICTURE = ("thumbnail", "embedding")
_JUDGED = (
    "image_id_a string, image_id_b string, tiers array<struct<tier:string,distance:float>>, "
    "probability float, is_taken boolean"
)


def verify_near_duplicates(
    near_duplicate_candidates: DataFrame,
    image_fingerprints: DataFrame,
    image_embeddings: DataFrame,
    pair_models: SmallTable,
    params: NearDuplicateParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Split the candidates; without verification all of them are pairs."""
    unseen = F.lit(None).cast("float").alias("probability")
    given = near_duplicate_candidates.select(*PAIR, "tier", "distance", unseen)
    if not params.verify.enabled:
        rejected = given.limit(0).withColumn("reason", F.lit(IMPROBABLE))
        return {"near_duplicate_pairs": given, "rejected_pairs": rejected}
    model = model_of(pair_models)
    tiers = F.sort_array(F.collect_list(F.struct("tier", "distance"))).alias("tiers")
    pairs = given.where(F.col("tier") != "exact").groupBy(*PAIR).agg(tiers)
    known = None
    if params.incremental == "auto" and (earlier := ctx.earlier(free=("cells_version",))):
        known = known_judgements(pairs, model.uses_cosine, earlier, ctx)
    if known is not None:
        pairs = pairs.join(known.select(*PAIR), on=list(PAIR), how="left_anti")
    pictures = image_fingerprints.select("image_id", "thumbnail")
    if model.uses_cosine:
        pictures = pictures.join(image_embeddings, on="image_id", how="left")
    else:
        pictures = pictures.withColumn("embedding", F.lit(None).cast("binary"))
    a, b = (
        pictures.select(*[F.col(c).alias(f"{c}_{end}") for c in ("image_id", *_PICTURE)])
        for end in "ab"
    )
    shown = pairs.join(b, on="image_id_b", how="inner").join(a, on="image_id_a", how="inner")
    columns = [*PAIR, "tiers", *(f"{c}_{end}" for c in _PICTURE for end in "ab")]
    rule = rule_of(model, params)

    def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield judge_pairs(batch, rule)

    judged = ctx.materialise(shown.select(*columns).mapInArrow(judge, _JUDGED))
    if known is not None:
        judged = judged.unionByName(known)
    told = judged.select(*PAIR, F.inline("tiers"), "probability", "is_taken")
    taken, rejected = (told.where(kept).drop("is_taken") for kept in ("is_taken", "NOT is_taken"))
    exact = given.where(F.col("tier") == "exact")
    return {
        "near_duplicate_pairs": exact.unionByName(taken),
        "rejected_pairs": rejected.withColumn("reason", F.lit(IMPROBABLE)),
    }


def rule_of(model: PairModel, params: NearDuplicateParams) -> PairRule:
    """What counts as a candidate and as a near-duplicate, by the parameters.

    Raises:
        ValueError: the model states no threshold for the precision asked for.
    """
    limits = params.verify
    stated = limits.min_precision
    return PairRule(
        model,
        limits.min_probability if stated is None else model.threshold(stated),
        limits.max_hamming if params.perceptual else None,
        limits.turned,
        limits.min_cosine if params.semantic else None,
    )


def judge_pairs(batch: pa.RecordBatch, rule: PairRule) -> pa.RecordBatch:
    """The pairs with their probability, and whether they are taken.

    Args:
        batch: the pair, ``tiers``, and of both ends a thumbnail and an embedding or null.
        rule: of the run.
    """
    a, b = (as_thumbnails(batch.column(f"thumbnail_{end}").to_pylist()) for end in "ab")
    distance, _ = turned_distance(turned_hashes(a), turned_hashes(b))
    chance = rule.probability(a, b, distance, _cosines(batch))
    columns = [*(batch.column(name) for name in (*PAIR, "tiers"))]
    columns += [pa.array(chance), pa.array(rule.accepts(chance))]
    return pa.RecordBatch.from_arrays(columns, [*PAIR, "tiers", "probability", "is_taken"])


def _cosines(batch: pa.RecordBatch) -> NDArray[np.float64]:
    """Cosines of the embeddings, NaN where one is absent or zero."""
    sides = [one_array(batch.column(f"embedding_{end}")) for end in "ab"]
    valid = [side.is_valid().to_numpy(zero_copy_only=False) for side in sides]
    rows = np.flatnonzero(valid[0] & valid[1])
    x, y = (l2_normalise(to_matrix(side.take(pa.array(rows)))) for side in sides)
    known = np.any(x != 0, axis=1) & np.any(y != 0, axis=1)
    rows, x, y = rows[known], x[known], y[known]
    every = np.arange(len(rows))
    cosine = np.full(batch.num_rows, np.nan)
    cosine[rows] = row_products(x, y, every, every)
    return cosine


STAGE = RelationalStage(
    name="verify_near_duplicates",
    version=1,
    fn=verify_near_duplicates,
    params=NearDuplicateParams,
    section="near_duplicates",
    inputs=(NEAR_DUPLICATE_CANDIDATES, IMAGE_FINGERPRINTS, IMAGE_EMBEDDINGS),
    broadcast=(PAIR_MODELS,),
    outputs=(NEAR_DUPLICATE_PAIRS, REJECTED_PAIRS),
    ledger=(
        LedgerRule(
            "pairs",
            ("near_duplicate_candidates",),
            ("near_duplicate_pairs",),
            dropped=("rejected_pairs",),
        ),
    ),
)

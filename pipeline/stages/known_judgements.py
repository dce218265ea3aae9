"""What an earlier run judged of candidates whose two pictures are as they were (SPEC N7).

A probability follows from two thumbnails, two embeddings, the model and the parameters, and from
nothing else: not from the tier that proposed the pair, nor from the cap. So it is taken over for
every candidate that an earlier run had, whatever has changed around it.

Cost at 1.329 billion images: thumbnails and embeddings of both versions read once side by side
(14 TB, no shuffle); candidates and judgements joined (10^10 rows of 60 bytes shuffled, 1 TB).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.stages.earlier import CHANGE, NEW, SAME, EarlierRun
from pipeline.stages.stage import StageContext

logger = logging.getLogger(__name__)

_PAIR = ("image_id_a", "image_id_b")
_TOUCHED_DDL = "image_id string, change tinyint"


def known_judgements(
    pairs: DataFrame, uses_cosine: bool, earlier: EarlierRun, ctx: StageContext
) -> DataFrame | None:
    """Candidates with the probability that they had.

    Args:
        pairs: image_id_a, image_id_b and what goes with them; the candidates of this run.
        uses_cosine: whether the model reads embeddings.
        earlier: run of the same parameters.
        ctx: of the stage.

    Returns:
        the columns of ``pairs``, probability, is_taken; None where another model judged.
    """
    if not earlier.has_same("pair_models"):
        fields: dict[str, object] = {"reason": "another model"}
        logger.info("judgements_from_scratch", extra={"fields": fields})
        return None
    tables = [("image_fingerprints", "thumbnail")]
    if uses_cosine:
        tables.append(("image_embeddings", "embedding"))
    told = [earlier.changes(t, ("image_id", c), _touched, _TOUCHED_DDL) for t, c in tables]
    touched = ctx.materialise(functools.reduce(DataFrame.unionByName, told))
    taken, rejected = (
        _judged(earlier.output(table), is_taken)
        for table, is_taken in (("near_duplicate_pairs", True), ("rejected_pairs", False))
    )
    found = pairs.join(taken.unionByName(rejected), on=list(_PAIR), how="inner")
    for end in _PAIR:
        others = touched.select(F.col("image_id").alias(end))
        found = found.join(others, on=end, how="left_anti")
    known = ctx.materialise(found)
    is_there = F.col(CHANGE) == NEW
    fields = {
        "images_new_or_changed": ctx.count(touched.where(is_there).select("image_id").distinct()),
        "images_gone_or_changed": ctx.count(touched.where(~is_there).select("image_id").distinct()),
        "judgements_taken_over": ctx.count(known),
    }
    logger.info("judgements_incremental", extra={"fields": fields})
    return known


def _touched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Images whose value is new or gone."""
    for batch in batches:
        rows = batch.filter(pc.not_equal(batch.column(CHANGE), SAME))
        yield rows.select(["image_id", CHANGE])


def _judged(rows: DataFrame, is_taken: bool) -> DataFrame:
    """Pairs that a model looked at, once whatever the number of their tiers."""
    looked_at = rows.where(F.col("probability").isNotNull())
    once = looked_at.select(*_PAIR, "probability").distinct()
    return once.withColumn("is_taken", F.lit(is_taken))

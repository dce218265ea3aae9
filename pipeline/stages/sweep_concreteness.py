"""What each decision boundary would keep (SPEC C6).

Cost at 1.329 billion images: one narrow pass over the selected annotations, reduced to one row a
boundary and task before the only shuffle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.labels import SweepConcretenessParams
from pipeline.kernels.nested import flatten_annotations
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.inputs import SOURCE_BOUNDARY_EVALUATIONS
from schemas.labels import CONCRETENESS_SWEEP, SELECTED_ANNOTATIONS, TERM_CONCRETENESS

_COUNTS = tuple((c.name, c.spark_type) for c in CONCRETENESS_SWEEP.columns if c.name != "metric")


def sweep_concreteness(
    selected_annotations: DataFrame,
    source_boundary_evaluations: DataFrame | None,
    term_concreteness: SmallTable,
    params: SweepConcretenessParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Count terms, annotations and images at or above each boundary; unscored terms never do.

    A given proxy evaluation stands beside its boundary.

    Raises:
        ValueError: an evaluated boundary is not on the grid.
    """
    boundaries = np.unique(np.asarray(params.boundaries, np.float32))

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scores = _by_term(term_concreteness.read())
        kept = np.zeros(len(boundaries), np.int64)
        images = np.zeros(len(boundaries), np.int64)
        for batch in batches:
            found = count_kept(batch.column("annotations"), scores, boundaries)
            kept, images = kept + found[0], images + found[1]
        known = scores[np.isfinite(scores)]
        terms = len(known) - np.searchsorted(np.sort(known), boundaries, side="left")
        columns = [pa.array(boundaries), *map(pa.array, (terms.astype(np.int64), kept, images))]
        yield pa.RecordBatch.from_arrays(columns, [name for name, _ in _COUNTS])

    parts = selected_annotations.mapInArrow(count, ", ".join(map(" ".join, _COUNTS)))
    counts = parts.groupBy("boundary").agg(
        F.max("num_terms").alias("num_terms"),
        F.sum("num_annotations").alias("num_annotations"),
        F.sum("num_images").alias("num_images"),
    )
    if source_boundary_evaluations is None:
        swept = counts.withColumn("metric", F.lit(None).cast("double"))
    else:
        metrics = _evaluated(source_boundary_evaluations, boundaries, ctx)
        swept = counts.join(F.broadcast(metrics), on="boundary", how="left")
    return {"concreteness_sweep": swept.select(*CONCRETENESS_SWEEP.column_names)}


def _evaluated(
    evaluations: DataFrame, boundaries: NDArray[np.float32], ctx: StageContext
) -> DataFrame:
    """(boundary, metric) of evaluated boundaries, the best metric where one is given twice."""
    on_grid = F.col("boundary").cast("float").isin([float(b) for b in boundaries])
    usable = evaluations.where(F.col("metric").isNotNull())
    strangers = ctx.count(usable.where(~F.coalesce(on_grid, F.lit(False))))
    if strangers:
        raise ValueError(
            f"boundary_evaluations.boundary: {strangers} rows are not on the grid, expected values "
            "of sweep_concreteness.boundaries: add theirs to it."
        )
    best = usable.groupBy(F.col("boundary").cast("float").alias("boundary"))
    return best.agg(F.max("metric").alias("metric"))


def count_kept(
    annotations: pa.Array, scores: NDArray[np.float32], boundaries: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Annotations and images at or above each boundary.

    Args:
        annotations: list<struct<term_id, score>>, n images.
        scores: float32 by term_id, NaN for unscored.
        boundaries: float32 (b,), ascending.

    Returns:
        int64 (b,) annotations and int64 (b,) images with at least one of them.
    """
    flat = flatten_annotations(annotations)
    inside = flat.term_ids < len(scores)
    of = np.full(len(flat.term_ids), np.nan, np.float32)
    of[inside] = scores[flat.term_ids[inside]]
    is_scored = np.isfinite(of)
    rows, of = flat.rows[is_scored], of[is_scored]
    best = np.full(len(flat.offsets) - 1, -np.inf, np.float32)
    np.maximum.at(best, rows, of)
    return _at_or_above(of, boundaries), _at_or_above(best, boundaries)


def _at_or_above(values: NDArray[np.float32], boundaries: NDArray[np.float32]) -> NDArray[np.int64]:
    place = np.searchsorted(boundaries, values, side="right")
    passed = np.bincount(place, minlength=len(boundaries) + 1)
    return np.asarray(passed[::-1].cumsum()[::-1][1:], np.int64)


def _by_term(table: pa.Table) -> NDArray[np.float32]:
    ids = table["term_id"].to_numpy()
    scores = np.full(int(ids.max(initial=-1)) + 1, np.nan, np.float32)
    scores[ids] = table["concreteness"].to_numpy().astype(np.float32)
    return scores


STAGE = RelationalStage(
    name="sweep_concreteness",
    version=4,
    fn=sweep_concreteness,
    params=SweepConcretenessParams,
    inputs=(SELECTED_ANNOTATIONS, SOURCE_BOUNDARY_EVALUATIONS),
    optional=(SOURCE_BOUNDARY_EVALUATIONS,),
    broadcast=(TERM_CONCRETENESS,),
    outputs=(CONCRETENESS_SWEEP,),
)

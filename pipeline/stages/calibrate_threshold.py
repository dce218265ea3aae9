"""The lowest confidence threshold that reaches a precision on a judged sample (SPEC S2).

Cost: the judged sample, some 10^5 rows, in one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.labels import CalibrateThresholdParams
from pipeline.kernels.thresholds import ThresholdCurve
from pipeline.kernels.thresholds import calibrate_threshold as calibrate
from pipeline.stages.arrow import all_rows
from pipeline.stages.stage import RelationalStage, SmallTable, StageContext
from schemas.ingested import TERMS
from schemas.inputs import SOURCE_LABELLED_ANNOTATIONS
from schemas.labels import ANNOTATION_THRESHOLDS, THRESHOLD_CURVE


def calibrate_threshold(
    source_labelled_annotations: DataFrame,
    terms: SmallTable,
    params: CalibrateThresholdParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """One threshold for all terms; a term with a sample of its own gets its own if configured.

    Rows without a judgement or with a score outside [0, 1], as NaN is, are no part of the sample.

    Raises:
        ValueError: no threshold reaches the target on the whole sample.
    """
    usable = F.col("score").between(0, 1) & F.col("is_correct").isNotNull()
    sample = ctx.materialise(
        source_labelled_annotations.where(usable).select("term_id", "score", "is_correct")
    )
    if ctx.count(sample) == 0:  # tasks without rows would not notice
        raise _out_of_reach(params, 0, 0.0)

    def thresholds(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            ids, values = term_thresholds(rows, terms.read()["term_id"].to_numpy(), params)
            arrays = [pa.array(ids, pa.int32()), pa.array(values, pa.float32())]
            yield pa.RecordBatch.from_arrays(arrays, ANNOTATION_THRESHOLDS.column_names)

    def curve(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in all_rows(batches):
            found = _curve(rows, params)
            arrays = [
                pa.array(found.threshold, pa.float32()),
                pa.array(found.num_kept, pa.int64()),
                pa.array(found.precision),
                pa.array(found.precision_lower),
            ]
            yield pa.RecordBatch.from_arrays(arrays, THRESHOLD_CURVE.column_names)

    whole = sample.repartition(1)
    return {
        "annotation_thresholds": whole.mapInArrow(thresholds, ANNOTATION_THRESHOLDS.ddl),
        "threshold_curve": whole.mapInArrow(curve, THRESHOLD_CURVE.ddl),
    }


def term_thresholds(
    sample: pa.Table, term_ids: NDArray[np.int32], params: CalibrateThresholdParams
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Threshold of every term of the dictionary.

    Args:
        sample: term_id, score, is_correct.
        term_ids: the dictionary.
        params: see there.

    Returns:
        int32 (n,) terms ascending and float32 (n,) thresholds.

    Raises:
        ValueError: no threshold reaches the target on the whole sample.
    """
    overall = _curve(sample, params)
    if overall.chosen is None:
        best = float(np.max(overall.precision_lower, initial=0.0))
        raise _out_of_reach(params, sample.num_rows, best)
    ids = np.sort(np.asarray(term_ids, np.int32))
    values = np.full(len(ids), overall.chosen, np.float32)
    if params.per_term:
        owners = sample["term_id"].to_numpy()
        for place, term in enumerate(ids.tolist()):
            own = sample.filter(pa.array(owners == term))
            if own.num_rows >= params.min_sample:
                chosen = _curve(own, params).chosen
                # A term that never reaches the target keeps only what is certain.
                values[place] = (
                    np.nextafter(np.float32(1), np.float32(2)) if chosen is None else chosen
                )
    return ids, values


def _out_of_reach(params: CalibrateThresholdParams, num_judged: int, best: float) -> ValueError:
    return ValueError(
        f"calibrate_threshold.target_precision: no threshold reaches {params.target_precision} "
        f"on {num_judged} judged annotations; the best bound is {best:.3f}. Lower the target or "
        "judge more."
    )


def _curve(sample: pa.Table, params: CalibrateThresholdParams) -> ThresholdCurve:
    return calibrate(
        sample["score"].to_numpy(),
        sample["is_correct"].to_numpy(),
        params.target_precision,
        params.confidence,
    )


STAGE = RelationalStage(
    name="calibrate_threshold",
    version=2,
    fn=calibrate_threshold,
    params=CalibrateThresholdParams,
    inputs=(SOURCE_LABELLED_ANNOTATIONS,),
    broadcast=(TERMS,),
    outputs=(ANNOTATION_THRESHOLDS, THRESHOLD_CURVE),
)

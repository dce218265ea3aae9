"""Report resampling: samples, resampled_out, label_frequencies -> resampling_report, its policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.dataset import ResampleImagesParams
from pipeline.kernels.resampling import FIXED_POINT, label_sums, to_fixed_point
from pipeline.stages.label_sums import flat_labels, sum_by_label
from pipeline.stages.resample_images import prepare
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.dataset import (
    LABEL_FREQUENCIES,
    RESAMPLED_OUT,
    RESAMPLING_REPORT,
    SAMPLES,
    SAMPLING_POLICY,
)

_ROOT_POLICIES = ("inverse_sqrt", "repeat_factor")


def report_resampling(
    samples: DataFrame,
    resampled_out: DataFrame,
    label_frequencies: SmallTable,
    params: ResampleImagesParams,
    ctx: StageContext,
) -> dict[str, DataFrame]:
    """Label counts before, expected after and realised after resampling, and the resolved policy.

    Weights are added up as integers, in units of 2**-20: a sum of floats would depend on how rows
    are spread over tasks. Images that were drawn 0 times count in the expectation.

    Cost at 1.329 billion images: one scan of both tables (80 GB), a shuffle of one row a label and
    task.
    Source: SPEC R2, R4.
    """
    del ctx
    columns = ("label_ids", "weight", "copies")
    images = samples.select(*columns).unionByName(
        resampled_out.withColumn("copies", F.lit(0)).select(*columns)
    )
    names = ("num_before", "expected_units", "realised_after")
    sums = sum_by_label(images, names, label_frequencies, _sums)
    expected = (F.col("expected_units") / F.lit(FIXED_POINT)).alias("expected_after")
    report = sums.select("label_id", "num_before", expected, "realised_after")
    return {
        "resampling_report": report,
        "sampling_policy": _policy(samples, label_frequencies, params),
    }


def _sums(
    batch: pa.RecordBatch, counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    offsets, values = flat_labels(batch.column("label_ids"))
    weights = to_fixed_point(batch.column("weight").to_numpy())
    copies = batch.column("copies").to_numpy()
    ones = np.ones(batch.num_rows, np.int64)
    before, expected, realised = (
        label_sums(offsets, values, amounts, len(counts)) for amounts in (ones, weights, copies)
    )
    return before, expected, realised


def _policy(
    samples: DataFrame, label_frequencies: SmallTable, params: ResampleImagesParams
) -> DataFrame:
    """One row, computed by a task: the label table is not the driver's to read."""

    def resolve(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            frequencies = label_frequencies.read()
            num_images = sum(frequencies["num_images_rarest"].to_pylist())
            threshold = params.threshold
            if threshold is None and params.policy in _ROOT_POLICIES and num_images:
                threshold = prepare(frequencies, params).scale ** 2 / num_images
            row = {
                "policy": params.policy,
                "materialised": params.materialised,
                "threshold": threshold if params.policy in _ROOT_POLICIES else None,
                "cap": params.cap,
                "max_copies": params.max_copies,
                "seed": params.seed,
                "num_images": num_images,
            }
            yield pa.RecordBatch.from_pylist([row], SAMPLING_POLICY.arrow_schema)

    return samples.sparkSession.range(1, numPartitions=1).mapInArrow(resolve, SAMPLING_POLICY.ddl)


STAGE = RelationalStage(
    name="report_resampling",
    version=1,
    fn=report_resampling,
    params=ResampleImagesParams,
    section="resample_images",
    inputs=(SAMPLES, RESAMPLED_OUT),
    broadcast=(LABEL_FREQUENCIES,),
    outputs=(RESAMPLING_REPORT, SAMPLING_POLICY),
    ledger=(
        LedgerRule("labels", ("label_frequencies.num_images",), ("resampling_report.num_before",)),
    ),
)

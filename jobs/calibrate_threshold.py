"""Calibrate the threshold: source_labelled_annotations -> annotation_thresholds."""

from pipeline.runtime.cli import run_job
from pipeline.stages.calibrate_threshold import STAGE

if __name__ == "__main__":
    run_job(STAGE)

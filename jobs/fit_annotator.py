"""Calibrate annotation confidence: images -> annotator_model."""

from pipeline.runtime.cli import run_job
from pipeline.stages.fit_annotator import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Resample images: training_images, label_frequencies -> samples, resampled_out."""

from pipeline.runtime.cli import run_job
from pipeline.stages.resample_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

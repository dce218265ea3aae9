"""Freeze the labels: image_labels, unique_images -> label_map, training_images."""

from pipeline.runtime.cli import run_job
from pipeline.stages.freeze_labels import STAGE

if __name__ == "__main__":
    run_job(STAGE)

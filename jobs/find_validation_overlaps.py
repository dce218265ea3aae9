"""Compare with validation images: image_fingerprints -> validation_overlaps."""

from pipeline.runtime.cli import run_job
from pipeline.stages.find_validation_overlaps import STAGE

if __name__ == "__main__":
    run_job(STAGE)

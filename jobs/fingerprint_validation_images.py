"""Fingerprint validation images: validation_images -> validation_fingerprints."""

from pipeline.runtime.cli import run_job
from pipeline.stages.fingerprint_validation_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

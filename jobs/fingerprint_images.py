"""Fingerprint images: images -> image_fingerprints."""

from pipeline.runtime.cli import run_job
from pipeline.stages.fingerprint_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Certify that nothing leaks: unique_images -> validation_certificate."""

from pipeline.runtime.cli import run_job
from pipeline.stages.certify_validation import STAGE

if __name__ == "__main__":
    run_job(STAGE)

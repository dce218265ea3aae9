"""Check evaluation images: source_validation_images -> validation_images."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_validation_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

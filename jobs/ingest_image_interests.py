"""Check given interests: source_image_interests -> image_interests."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_interests import IMAGE_INTERESTS_STAGE

if __name__ == "__main__":
    run_job(IMAGE_INTERESTS_STAGE)

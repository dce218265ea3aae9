"""Check seed images: source_image_interest_seeds -> image_interest_seeds."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_interests import IMAGE_SEEDS_STAGE

if __name__ == "__main__":
    run_job(IMAGE_SEEDS_STAGE)

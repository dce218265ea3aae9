"""Check interactions: source_image_interactions -> image_interactions."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_interests import INTERACTIONS_STAGE

if __name__ == "__main__":
    run_job(INTERACTIONS_STAGE)

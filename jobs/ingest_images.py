"""Check images: source_images -> images."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

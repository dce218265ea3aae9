"""Check opt-outs: source_blocked_images -> blocked_images."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_blocked_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Check seed terms: source_interest_seeds -> interest_seeds."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_interests import SEEDS_STAGE

if __name__ == "__main__":
    run_job(SEEDS_STAGE)

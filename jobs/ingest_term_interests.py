"""Check given interests: source_term_interests -> term_interests."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_interests import TERM_INTERESTS_STAGE

if __name__ == "__main__":
    run_job(TERM_INTERESTS_STAGE)

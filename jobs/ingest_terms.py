"""Check the term dictionary: source_terms -> terms."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_terms import STAGE

if __name__ == "__main__":
    run_job(STAGE)

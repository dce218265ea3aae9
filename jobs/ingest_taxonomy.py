"""Read the taxonomy: source_taxonomy -> interests."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_interests import TAXONOMY_STAGE

if __name__ == "__main__":
    run_job(TAXONOMY_STAGE)

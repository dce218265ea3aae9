"""Check annotations of either form: source_annotations_* -> annotations."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_annotations import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Verify candidates: near_duplicate_candidates, thumbnails, a model -> near_duplicate_pairs."""

from pipeline.runtime.cli import run_job
from pipeline.stages.verify_near_duplicates import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Group pairs and choose the kept image: near_duplicate_pairs -> duplicate_groups."""

from pipeline.runtime.cli import run_job
from pipeline.stages.group_near_duplicates import STAGE

if __name__ == "__main__":
    run_job(STAGE)

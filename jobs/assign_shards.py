"""Assign shards: samples, unique_images, images -> shard_assignments, shard_plan."""

from pipeline.runtime.cli import run_job
from pipeline.stages.assign_shards import STAGE

if __name__ == "__main__":
    run_job(STAGE)

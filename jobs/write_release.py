"""Write the release: shard_assignments, label_map and reports -> shards, manifest."""

from pipeline.runtime.cli import run_job
from pipeline.stages.write_release import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Cluster visual terms inside interests: visual_terms -> clusters."""

from pipeline.runtime.cli import run_job
from pipeline.stages.cluster_terms import STAGE

if __name__ == "__main__":
    run_job(STAGE)

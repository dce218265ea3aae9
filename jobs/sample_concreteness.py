"""Sample positives and negatives: selected_annotations -> concreteness_positives."""

from pipeline.runtime.cli import run_job
from pipeline.stages.sample_concreteness import STAGE

if __name__ == "__main__":
    run_job(STAGE)

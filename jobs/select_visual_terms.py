"""Apply the decision boundary: term_concreteness -> visual_terms."""

from pipeline.runtime.cli import run_job
from pipeline.stages.select_visual_terms import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Score visual concreteness: concreteness_positives -> term_concreteness."""

from pipeline.runtime.cli import run_job
from pipeline.stages.score_concreteness import STAGE

if __name__ == "__main__":
    run_job(STAGE)

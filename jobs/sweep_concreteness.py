"""Count what each boundary keeps: term_concreteness -> concreteness_sweep."""

from pipeline.runtime.cli import run_job
from pipeline.stages.sweep_concreteness import STAGE

if __name__ == "__main__":
    run_job(STAGE)

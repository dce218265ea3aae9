"""Give terms their interests: terms -> term_interests."""

from pipeline.runtime.cli import run_job
from pipeline.stages.classify_terms import STAGE

if __name__ == "__main__":
    run_job(STAGE)

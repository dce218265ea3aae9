"""Train the term classifier: interest_seeds -> term_interest_model."""

from pipeline.runtime.cli import run_job
from pipeline.stages.train_term_classifier import STAGE

if __name__ == "__main__":
    run_job(STAGE)

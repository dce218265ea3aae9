"""Choose the verifier's model for the run's own encoder: source_pair_models -> pair_models."""

from pipeline.runtime.cli import run_job
from pipeline.stages.choose_pair_model import STAGE

if __name__ == "__main__":
    run_job(STAGE)

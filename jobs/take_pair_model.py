"""Choose the verifier's model where embeddings are given: source_pair_models -> pair_models."""

from pipeline.runtime.cli import run_job
from pipeline.stages.choose_pair_model import GIVEN_STAGE

if __name__ == "__main__":
    run_job(GIVEN_STAGE)

"""Take validation embeddings: validation_images -> validation_embeddings, those that were given."""

from pipeline.runtime.cli import run_job
from pipeline.stages.embed_validation_images import GIVEN_STAGE

if __name__ == "__main__":
    run_job(GIVEN_STAGE)

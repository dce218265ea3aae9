"""Train coarse cells: image_embeddings -> embedding_cells."""

from pipeline.runtime.cli import run_job
from pipeline.stages.train_cells import STAGE

if __name__ == "__main__":
    run_job(STAGE)

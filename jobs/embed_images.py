"""Embed images: images -> image_embeddings."""

from pipeline.runtime.cli import run_job
from pipeline.stages.embed_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

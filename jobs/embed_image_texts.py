"""Embed image texts: images -> image_text_embeddings."""

from pipeline.runtime.cli import run_job
from pipeline.stages.embed_image_texts import STAGE

if __name__ == "__main__":
    run_job(STAGE)

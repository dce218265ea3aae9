"""Check visual embeddings: source_image_embeddings -> image_embeddings."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_embeddings import IMAGES_STAGE

if __name__ == "__main__":
    run_job(IMAGES_STAGE)

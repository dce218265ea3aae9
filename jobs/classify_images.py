"""Give images their interests: image_text_embeddings -> image_interests."""

from pipeline.runtime.cli import run_job
from pipeline.stages.classify_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

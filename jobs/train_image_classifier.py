"""Train the image classifier: image_interest_seeds -> image_interest_model."""

from pipeline.runtime.cli import run_job
from pipeline.stages.train_image_classifier import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Count labels: training_images, label_map -> label_frequencies."""

from pipeline.runtime.cli import run_job
from pipeline.stages.count_labels import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Label images: selected_annotations, image_interests, clusters -> image_labels."""

from pipeline.runtime.cli import run_job
from pipeline.stages.label_images import STAGE

if __name__ == "__main__":
    run_job(STAGE)

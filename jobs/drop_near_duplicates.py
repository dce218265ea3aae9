"""Drop blocked, leaking and doubled images: image_fingerprints -> unique_images."""

from pipeline.runtime.cli import run_job
from pipeline.stages.drop_near_duplicates import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Read annotations from text: images -> annotations."""

from pipeline.runtime.cli import run_job
from pipeline.stages.predict_annotations import STAGE

if __name__ == "__main__":
    run_job(STAGE)

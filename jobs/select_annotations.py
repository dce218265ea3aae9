"""Select annotations: annotations, terms -> selected_annotations."""

from pipeline.runtime.cli import run_job
from pipeline.stages.select_annotations import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Count the images that name a term: images -> term_documents."""

from pipeline.runtime.cli import run_job
from pipeline.stages.count_term_documents import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Find candidates: image_fingerprints, image_embeddings -> near_duplicate_candidates."""

from pipeline.runtime.cli import run_job
from pipeline.stages.find_near_duplicates import STAGE

if __name__ == "__main__":
    run_job(STAGE)

"""Check text embeddings: source_term_embeddings -> text_embeddings."""

from pipeline.runtime.cli import run_job
from pipeline.stages.ingest_embeddings import TERMS_STAGE

if __name__ == "__main__":
    run_job(TERMS_STAGE)

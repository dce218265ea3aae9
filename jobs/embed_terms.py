"""Embed terms: terms, interest_seeds -> text_embeddings."""

from pipeline.runtime.cli import run_job
from pipeline.stages.embed_terms import STAGE

if __name__ == "__main__":
    run_job(STAGE)

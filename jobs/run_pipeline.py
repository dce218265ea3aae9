"""Run every stage that is not current, in one Spark session."""

from pipeline.runtime.cli import run_pipeline

if __name__ == "__main__":
    run_pipeline()

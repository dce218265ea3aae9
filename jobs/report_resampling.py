"""Report resampling: samples, resampled_out, label_frequencies -> resampling_report."""

from pipeline.runtime.cli import run_job
from pipeline.stages.report_resampling import STAGE

if __name__ == "__main__":
    run_job(STAGE)

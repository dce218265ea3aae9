"""Files to tables, configuration and release: tars, folders of pictures, Hugging Face Parquet."""

import sys

from pipeline.runtime.adapters.command import run_import
from pipeline.runtime.explain import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: run_import(__doc__)))

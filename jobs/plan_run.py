"""What a run would cost at any size, from measured rates: plan_run.py --images 1.329e9."""

import sys

from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.run_plan_text import parse, run_plan

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: run_plan(parse(__doc__))))

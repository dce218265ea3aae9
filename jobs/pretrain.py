"""Pretrain a model on a release: torchrun --nproc-per-node=2 jobs/pretrain.py --preset demo."""

import sys

from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.pretraining import parse, run_pretraining

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: run_pretraining(parse(__doc__))))

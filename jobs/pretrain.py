"""Pretrain a model on a release: torchrun --nproc-per-node=2 jobs/pretrain.py --preset demo."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from pipeline.config.load import load_config
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.train.loop import RESUMABLE_EXIT_CODE, pretrain


def main() -> None:
    """Train until the end, or until SIGTERM; resumes by itself from the newest checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo", help="name of a preset or a .yaml file")
    parser.add_argument("--root", help="where tables and releases are; runs go to ROOT/pretrain")
    parser.add_argument("--release", help="release folder, ROOT/release by default")
    parser.add_argument("--set", action="append", default=[], metavar="train.x=y")
    parser.add_argument("--fresh", action="store_true", help="drop this run's checkpoints first")
    options = parser.parse_args()
    setup_logging(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    config = load_config(options.preset, options.set, options.root)
    release = options.release or f"{config.root}/release"
    outcome = pretrain(config.train, release, f"{config.root}/pretrain", options.fresh)
    if not outcome.finished:
        sys.exit(RESUMABLE_EXIT_CODE)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

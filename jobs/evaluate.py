"""Evaluate a pretrained model: torchrun --nproc-per-node=2 jobs/evaluate.py --preset demo."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from pipeline.config.load import load_config
from pipeline.evaluate.run import Unwatched, evaluate, step_names
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.progress import Progress


def main() -> None:
    """Evaluate the last finished run under ROOT/pretrain, or the export that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo", help="name of a preset or a .yaml file")
    parser.add_argument("--root", help="where all is; results go to ROOT/evaluate/<version>")
    parser.add_argument("--release", help="release folder, ROOT/release by default")
    parser.add_argument("--model", help="folder of runs or of an export, ROOT/pretrain by default")
    parser.add_argument("--set", action="append", default=[], metavar="evaluate.x=y")
    options = parser.parse_args()
    is_main = os.environ.get("RANK", "0") == "0"
    setup_logging(logging.INFO if is_main else logging.WARNING)
    config = load_config(options.preset, options.set, options.root)
    given = (
        config.evaluate,
        options.model or f"{config.root}/pretrain",
        options.release or f"{config.root}/release",
        f"{config.root}/evaluate",
    )
    if not is_main:
        evaluate(*given, Unwatched())
        return
    with Progress(step_names(config.evaluate)) as progress:
        folder = evaluate(*given, progress)
    if folder is not None:
        sys.stdout.write(folder.read_bytes("results.md").decode())
        sys.stdout.write(f"\n{folder.uri}/results.md\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

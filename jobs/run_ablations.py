"""Run the ablations: label procedure, resampling, loss and corpus size, with paired intervals."""

import sys

from pipeline.runtime.ablations.command import run_ablations
from pipeline.runtime.ablations.report import to_lines
from pipeline.runtime.cli import load_options, parse
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging


def main() -> None:
    """Command line."""
    options = parse(__doc__)
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    config = load_options(options)
    record, folder = run_ablations(config, options.force)
    for line in to_lines(record):
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"\n{config.root}/{folder}/results.md\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

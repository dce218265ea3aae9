"""Run the whole chain, pretrain on its release, draw the report and print a summary."""

import sys

from pipeline.runtime.cli import load_options, parse, run_chain
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.showcase import finish


def main() -> None:
    """Command line."""
    options = parse(__doc__)
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    config = load_options(options)
    run_chain(config, options.force)
    finish(config, options)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

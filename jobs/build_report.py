"""Write the report of a root: the explorer, pictures, funnel."""

import sys

from pipeline.runtime.cli import load_options, parse
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.report import write_report


def main() -> None:
    """Command line."""
    options = parse(__doc__)
    setup_logging()
    folder = write_report(load_options(options))
    sys.stdout.write(f"{folder.uri}/index.html\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

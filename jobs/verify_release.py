"""Verify a release: every hash, count, key, label and offset; exit status 1 where one differs."""

import argparse
import sys

from pipeline.runtime.cli import load_options
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.verification import findings_lines, run_verification


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny", help="whose `runtime` section is used")
    parser.add_argument("--root", required=True, help="folder or URI of a run, or of a release")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    findings = run_verification(load_options(parser.parse_args()))
    sys.stdout.writelines(f"{line}\n" for line in findings_lines(findings))
    if findings.counts:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

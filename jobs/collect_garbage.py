"""Delete table versions that no pointer names and scratch that a killed run left."""

import argparse
import sys

from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.garbage import collect_garbage


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder or URI of the run")
    parser.add_argument("--days", type=float, default=7.0, help="least age of what is deleted")
    parser.add_argument("--dry-run", action="store_true", help="only list")
    options = parser.parse_args()
    for name in collect_garbage(options.root, options.days, options.dry_run):
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

"""Write schemas/TABLES.md from the contracts, or check that it is fresh."""

import argparse
import sys
from pathlib import Path

from schemas import SECTIONS, to_markdown


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the file is stale")
    options = parser.parse_args()
    path = Path("schemas/TABLES.md")
    text = to_markdown(SECTIONS)
    if not options.check:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit("schemas/TABLES.md is stale: run `make tables` and commit it.")


if __name__ == "__main__":
    main()

"""Compare label variants: terms, clusters, labels and images of each (the paper's Table 2)."""

import sys

from pipeline.runtime.cli import load_options, parse
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.variants import compare_variants, variant_lines


def main() -> None:
    """Command line."""
    options = parse(__doc__)
    setup_logging()
    for line in variant_lines(compare_variants(load_options(options), options.force)):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

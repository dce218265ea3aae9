"""Re-issue a release without some images (opt-out); only shards that hold them are rewritten."""

import argparse
import sys

from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.reissue import run_reissue


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder or URI of a run, or of a release")
    parser.add_argument("--out", required=True, help="home of re-issued releases")
    parser.add_argument("--names", required=True, help="file of image_ids or keys, one a line")
    parser.add_argument("--threads", type=int, default=8, help="shards worked on at once")
    options = parser.parse_args()
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    new = run_reissue(options.root, options.out, options.names, options.threads)
    sys.stdout.write(f"{new.uri}\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

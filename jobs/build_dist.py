"""Build what a cluster is sent: dist/app.zip (code) and dist/env.tar.gz (packages)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.runtime.dist import FULL_EXTRAS, build_app_zip, build_env
from pipeline.runtime.explain import exit_code_of


def main() -> None:
    """Build the parts named on the command line and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("app", "env", "env-full"))
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder to write to")
    options = parser.parse_args()
    here = Path.cwd()
    for part in options.parts:
        if part == "app":
            made = build_app_zip(options.out / "app.zip")
        elif part == "env":
            made = build_env(options.out / "env.tar.gz", (), here)
        else:
            made = build_env(options.out / "env-full.tar.gz", FULL_EXTRAS, here, level=1)
        print(f"{made}: {made.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

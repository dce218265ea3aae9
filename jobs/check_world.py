"""Plant a world, run the whole chain on it, print how well it recovers what was planted (JSON)."""

import argparse
import json
import sys
from pathlib import Path

from pipeline.demo.planted_world import generate
from pipeline.demo.planted_writer import WorldOptions
from pipeline.runtime.cli import run_chain
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.world_check import check_world, world_config


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="build/world", help="folder of the world and the run")
    parser.add_argument("--preset", default="world", help="name of a preset or a .yaml file")
    parser.add_argument("--num-images", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    options = parser.parse_args()
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    root = Path(options.root)
    planted = WorldOptions(annotations="both")
    world = generate(root / "inputs", options.num_images, None, options.seed, options=planted)
    config = world_config(world, str(root / "run"), options.set, options.preset)
    run_chain(config)
    sys.stdout.write(json.dumps(check_world(world, config), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

"""Write a planted world: user tables of any size whose every answer is known.

python jobs/generate_world.py --out DIR [--num-images N] [--num-terms T] [--seed S] [--no-bytes]
"""

import argparse
import json
from pathlib import Path

from pipeline.demo.planted_world import generate
from pipeline.demo.planted_writer import WorldOptions


def main() -> None:
    """Parse the command line, generate, and print where the tables are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-images", type=int, default=20_000)
    parser.add_argument("--num-terms", type=int, help="default: one a 50 images, at least 100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-bytes", action="store_true", help="no pictures, for large sizes")
    parser.add_argument("--annotations", choices=("long", "nested", "both"), default="long")
    args = parser.parse_args()
    options = WorldOptions(annotations=args.annotations)
    try:
        world = generate(
            args.out, args.num_images, args.num_terms, args.seed, not args.no_bytes, options
        )
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps({name: str(path) for name, path in world.tables.items()}, indent=1))


if __name__ == "__main__":
    main()

"""Run benchmarks by name: `python tests/benchmarks/run.py concreteness --size small`.

Without a name it lists them; `all` runs every one that does not take an hour.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from benchmarks import harness  # noqa: E402 - the path comes first


def names() -> list[str]:
    """Benchmarks there are."""
    return sorted(p.stem.removeprefix("bench_") for p in harness.FOLDER.glob("bench_*.py"))


def _not_long() -> list[str]:
    return [n for n in names() if not getattr(_module(n), "IS_LONG", False)]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.bench_{name}")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names())}, or all")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--no-record", action="store_true", help="print the line, keep no record")
    given = parser.parse_args()
    if not given.names:
        sys.stdout.write("benchmarks: " + " ".join(names()) + "\n")
        return 0
    wanted = _not_long() if given.names == ["all"] else given.names
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}, expected one of {', '.join(names())} or all.")
    for name in wanted:
        measured = _module(name).run(given.size)
        line = harness.line_of(name, measured)
        if not given.no_record:
            harness.append(line)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Command line of an import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from pipeline.config.imports import Check, ImportParams, Kind
from pipeline.config.load import load_config
from pipeline.kernels.source_records import FIELDS
from pipeline.runtime.adapters.run import Imported, import_source
from pipeline.runtime.cli import run_chain
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import setup_logging

_PARAMETERS = ("kind", "table", "check", "min_term_images", "processes")


def run_import(doc: str | None, argv: Sequence[str] | None = None) -> None:
    """Import, tell what was found, and run the chain to the release.

    Args:
        doc: of the job.
        argv: None for the process's own.

    Raises:
        UserError: an option is malformed.
        ValueError: see ``import_source`` and ``run_chain``.
    """
    given = _parser(doc).parse_args(argv)
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    told = {n: getattr(given, n) for n in _PARAMETERS if getattr(given, n) is not None}
    params = ImportParams(columns=_columns(given.columns), **told)
    done = import_source(given.source, given.root, params, given.preset, given.force)
    sys.stdout.write(summary(done))
    sys.stdout.flush()
    if not given.tables_only:
        run_chain(load_config(done.config_path, given.overrides, given.root))


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    add = parser.add_argument
    add("--source", required=True, help="folder or URI with the files")
    add("--root", required=True, help="folder or URI of the run")
    add("--kind", choices=get_args(Kind), help="form of the source, where its files mislead")
    add("--table", help="CSV or JSON lines file below the source that names the pictures")
    add("--column", action="append", default=[], metavar="FIELD=COLUMN", dest="columns",
        help=f"the source's own column of one of {', '.join(FIELDS)}")  # fmt: skip
    add("--check", choices=get_args(Check), help="how pictures are checked; default: decoded whole")
    add("--min-term-images", type=int, help="images that a term needs")
    add("--processes", type=int, help="tasks at once; default: one a core")
    add("--preset", help="what the configuration extends; default: by the number of images")
    add("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides",
        help="for the chain; what shall stay belongs into mine.yaml")  # fmt: skip
    add("--tables-only", action="store_true", help="stop before the chain")
    add("--force", action="store_true", help="read the source although it is as it was")
    return parser


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if name not in FIELDS or not column:
            raise UserError(f"--column {pair!r}: expected FIELD=COLUMN, FIELD of {list(FIELDS)}.")
        columns[name] = column
    return columns


def summary(done: Imported) -> str:
    """Counts, reasons and where everything is, for the terminal."""
    counts, reasons = done.manifest["counts"], done.manifest["reasons"]
    how = {"keywords": "the source's keywords", "predicted": "predicted from the texts"}
    lines = [
        f"{done.manifest['kind']}: {counts['samples']:,} samples, {counts['images']:,} images, "
        f"{counts['rejected']:,} rejected",
        *(f"  {count:>10,}  {reason}" for reason, count in reasons.items()),
        f"{counts['terms']:,} terms on {done.manifest['min_term_images']} images or more; "
        f"annotations: {how[done.manifest['annotations']]}",
        f"tables: {done.folder} below the root; configuration: {done.config_path}",
    ]
    return "\n".join(lines) + "\n"

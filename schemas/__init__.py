"""Contracts of every table: the words that stages, trainer and users share."""

from collections.abc import Mapping

from schemas.contract import Column, Table
from schemas.dataset import DATASET
from schemas.evaluation import EVALUATION
from schemas.images import IMAGE_TABLES
from schemas.imports import IMPORTS
from schemas.ingested import INGESTED
from schemas.inputs import SOURCES
from schemas.labels import LABELS

SECTIONS: dict[str, tuple[Table, ...]] = {
    "What you bring": SOURCES,
    "After an import": IMPORTS,
    "After ingest": INGESTED,
    "Labels": LABELS,
    "Near-duplicates": IMAGE_TABLES,
    "The dataset": DATASET,
    "For evaluation": EVALUATION,
}
"""Contracts by subject, in the order of the pipeline."""

ALL: dict[str, Table] = {table.name: table for part in SECTIONS.values() for table in part}
"""Every contract by table name."""


def to_markdown(sections: Mapping[str, tuple[Table, ...]]) -> str:
    """The contracts as one Markdown page."""
    parts = [
        "# Tables\n",
        "Made from the contracts in this folder by `make tables`; do not edit.",
        "`vector` is a fixed number of little-endian float32 values as binary.\n",
    ]
    for title, tables in sections.items():
        parts.append(f"# {title}\n")
        parts += [table.to_markdown() for table in tables]
    return "\n".join(parts)


__all__ = ["ALL", "SECTIONS", "Column", "Table", "to_markdown"]

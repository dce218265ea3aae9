"""Contracts of every table: the words that stages, trainer and users share."""

from schemas.contract import Column, Table
from schemas.dataset import DATASET
from schemas.images import IMAGE_TABLES
from schemas.ingested import INGESTED
from schemas.inputs import SOURCES
from schemas.labels import LABELS

ALL: dict[str, Table] = {
    table.name: table for table in (*SOURCES, *INGESTED, *LABELS, *IMAGE_TABLES, *DATASET)
}
"""Every contract by table name."""

__all__ = ["ALL", "Column", "Table"]

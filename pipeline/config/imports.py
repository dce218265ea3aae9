"""Parameters of `make import`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.base import Params
from pipeline.config.ingest import ImageLimits

Kind = Literal["webdataset", "folder", "parquet"]
Check = Literal["decode", "header", "none"]


class ImportParams(Params):
    """What an import takes for a sample, and which samples it sets aside."""

    kind: Kind | None = None
    """Form of the source; None looks at its files."""
    table: str | None = None
    """CSV or JSON lines file below the source that names the pictures; None: `metadata.csv` and
    `metadata.jsonl`, wherever they stand."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Field (`file_name`, `title`, `description`, `keywords`, `source`, `licence`) -> the source's
    own column, where it has none of the usual names."""
    check: Check = "decode"
    """How pictures are checked: decoded whole; format, size and caps by their header; or not."""
    limits: ImageLimits = ImageLimits()
    max_text_bytes: int = Field(1 << 20, gt=0)
    """Largest side-car or line, bytes."""
    samples_per_part: int = Field(20_000, ge=1)
    """Files of a folder that one task reads into one part (A)."""
    max_caption_share: float = Field(0.1, gt=0, le=1)
    """A word or pair of words in more captions than this share is no term (A): it tells nothing."""
    max_term_words: int = Field(6, ge=1)
    """A keyword of more words is a sentence and no term (A)."""
    min_term_images: int | None = Field(None, ge=1)
    """Pictures that a term needs; None: `score_concreteness.min_positives` of the preset, since a
    rarer term can never enter the visual dictionary."""
    processes: int = Field(0, ge=0)
    """Tasks at once; 0 is one a core."""

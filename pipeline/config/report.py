"""Parameters of the report: its pictures and the explorer."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.base import Params


class ExplorerParams(Params):
    """How much of a run the explorer shows. All of it is sampled: none grows with the corpus."""

    max_rows: int = Field(1_000_000, ge=1)
    """Rows that are read of each image table for examples. Buckets are hashes of the image, so the
    first ones are a fair sample."""
    max_pictures: int = Field(6_000, ge=0)
    """Example pictures of clusters, about 2 kB each; other examples have limits of their own."""
    picture_side: int = Field(112, ge=16, le=512)
    """Longer side of a picture, pixels."""
    picture_quality: int = Field(60, ge=1, le=100)
    """WebP quality."""
    num_examples: int = Field(6, ge=0)
    """Images of a cluster or term."""
    num_terms: int = Field(16, ge=1)
    """Terms on each side of the decision boundary that are shown with images."""
    max_terms: int = Field(4_000, ge=1)
    """Rows of the table of terms; where there are more, those nearest to the boundary."""
    num_neighbours: int = Field(6, ge=0)
    """Nearest clusters of a cluster."""
    num_groups: int = Field(60, ge=0)
    """Near-duplicate groups, and validation removals."""
    group_size: int = Field(6, ge=1)
    """Dropped images of a group that are shown."""
    num_lost: int = Field(48, ge=0)
    """Images that lost a label to their interests, with pictures."""
    max_rejected: int = Field(200, ge=0)
    """Rejected rows of each table."""


class ReportParams(Params):
    """Parameters of the report's pictures."""

    num_terms: int = Field(20, ge=1)
    """Most and least concrete terms that are listed."""
    num_labels: int = Field(16, ge=1)
    """Labels on the contact sheet."""
    num_groups: int = Field(12, ge=1)
    """Near-duplicate groups that are drawn."""
    explorer: ExplorerParams = ExplorerParams()
    seed: int = 0

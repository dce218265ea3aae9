"""Parameters of fingerprints and near-duplicate removal."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.base import Params
from pipeline.config.ingest import ImageLimits


class FingerprintImagesParams(Params):
    """Parameters of `fingerprint_images` and `fingerprint_validation_images`."""

    limits: ImageLimits = ImageLimits()
    is_approximate: bool = False
    """Hashes and thumbnails of JPEGs from their luma, scaled down by the decoder: about twice as
    fast, not always imagehash's bits."""
    read_seconds: float = Field(60.0, gt=0)
    """Time-out of reading one image from its uri."""
    read_retries: int = Field(3, ge=0)
    """Further tries after a failed read."""
    read_threads: int = Field(16, ge=1)
    """Images read at once by a task, where they stand in files."""


class VerifyParams(Params):
    """How candidates are found and verified, where `near_duplicates.verify.enabled`."""

    enabled: bool = True
    """Candidates of the wider limits below count only if the model says so. Off: pairs within
    `max_hamming` or above `min_cosine` count as they are."""
    max_hamming: int = Field(6, ge=0, le=8)
    """Radius of candidates between hashes of the thumbnails, bits (A)."""
    turned: bool = True
    """Whether hashes of all eight flips and turns are searched, at eight times the rows."""
    min_cosine: float = Field(0.7, gt=0, le=1)
    """Least cosine of a candidate (A)."""
    num_nearest: int = Field(4, ge=1)
    """Semantic candidates an image has of its own in a cell, the nearest."""
    max_candidates: int = Field(8, ge=1)
    """Candidates an image has of its own over all tiers; more are counted and left out."""
    min_probability: float = Field(0.9, ge=0, le=1)
    """Least chance that a pair is one picture, from which it counts (DESIGN 25: precision)."""
    min_precision: float | None = Field(None, gt=0, le=1)
    """In place of `min_probability`: pairs count from the probability at which the model's held-out
    pairs were right with this precision, or the next higher one that the model states. Where
    look-alikes are commoner than among its training photos, precision is lower (DESIGN 25)."""


class NearDuplicateParams(Params):
    """What a near-duplicate is, for the search, the groups and the validation overlaps."""

    exact: bool = True
    """Equal bytes."""
    perceptual: bool = True
    """Perceptual hashes within the radius."""
    semantic: bool = True
    """Visual embeddings above the cosine."""
    max_hamming: int = Field(4, ge=0, le=8)
    """Radius of the 64-bit perceptual hash, bits."""
    min_cosine: float = Field(0.96, gt=0, le=1)
    """Least cosine of near-duplicates."""
    samples_per_cell: int = Field(64, ge=1)
    """Images a coarse cell of the semantic search is trained on (A)."""
    cells_version: str | None = Field(None, pattern=r"^[0-9a-f]{12}$")
    """Version of `train_cells` whose centroids stay as they are, so that a batch of images is
    matched against the corpus by the semantic tier without redoing it; None trains on the images
    of this run. The content of a version decides, so two runs that name it agree."""
    incremental: Literal["auto", "never"] = Field("auto", exclude=True)
    """auto: take over what an earlier run on this root found between images that are as they were;
    never: search anew. Rows and versions are the same."""
    incremental_min_images: int = Field(10_000_000, ge=0, exclude=True)
    """Smaller corpora are searched anew all the same: that takes seconds, and fewer jobs."""
    num_probes: int = Field(3, ge=1)
    """Cells an image is compared in."""
    task_rows: int = Field(2_000_000, ge=1)
    """Rows of a hash table, or edges of the graph, that one task holds."""
    verify_against_kept: bool = True
    """Members of a group must match the kept image itself, not only a neighbour (SPEC N4)."""
    max_rounds: int = Field(50, ge=1)
    """Rounds of connected components before giving up with an error."""
    verify: VerifyParams = Field(default_factory=VerifyParams)
    seed: int = 0


class DropNearDuplicatesParams(Params):
    """Parameters of `drop_near_duplicates` (SPEC N5, N6)."""

    drop_blocked_duplicates: bool = True
    """Near-duplicates of a blocked image are dropped too; exact ones always are."""

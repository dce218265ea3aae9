"""Parameters of ingest, of the encoders and of annotation prediction."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.base import Params


class IngestParams(Params):
    """Parameters of the ingest stages."""

    language: str = "en"
    """Language of a term whose row gives none."""
    sensitive_list: str | None = None
    """Path of a text file of sensitive terms, one a line, beside those that `terms` marks."""


class ImageLimits(Params):
    """Caps that an image must pass before it is decoded (SPEC Y1)."""

    max_bytes: int = Field(64 << 20, gt=0)
    """Encoded size, bytes."""
    max_pixels: int = Field(100_000_000, gt=0)
    """Width times height, from the header."""


class PredictAnnotationsParams(Params):
    """Parameters of `predict_annotations`."""

    anchor_precision: float = Field(0.95, gt=0, le=1)
    """Confidence of the surest candidates (A); see `pipeline.kernels.annotate_fit`."""
    anchor_share: float = Field(0.1, gt=0, le=1)
    """Share of the candidates that these are (A)."""
    num_training_images: int = Field(20_000, ge=10)
    """Images that calibrate the confidence, the lowest by hash."""
    min_score: float = Field(0.01, ge=0, le=1)
    """Candidates below are not written."""
    seed: int = 0


class EmbedImagesParams(Params):
    """Parameters of `embed_images` and `embed_validation_images`."""

    model: str = "package:efficientnet_lite0"
    """`package:efficientnet_lite0`, `timm:<name>` or `timm:<name>@<checkpoint path>`."""
    image_size: int = Field(224, ge=16)
    """Side of the square input, pixels."""
    batch_size: int = Field(16, ge=1)
    """Images a forward pass: 16 is fastest on a CPU, a GPU wants more. On a CPU a size with
    which vectors would depend on the place in the batch is refused; the error names one that is
    not."""
    device: str = "cpu"
    """Torch device of every worker."""
    threads: int = Field(1, ge=1)
    """Threads of one task; more only where a task has more than one core."""
    limits: ImageLimits = ImageLimits()
    read_seconds: float = Field(60.0, gt=0)
    """Time-out of reading one image from its uri."""
    read_retries: int = Field(3, ge=0)
    """Further tries after a failed read."""
    read_threads: int = Field(16, ge=1)
    """Images that one task reads at once."""


class EmbedTextsParams(Params):
    """Parameters of `embed_terms` and `embed_image_texts`."""

    model: str = "package:all_minilm_l6_v2"
    """`package:all_minilm_l6_v2`, `package:all_mpnet_base_v2` (better and slower: DESIGN 24), or a
    sentence-transformers name or path."""
    batch_tokens: int = Field(512, ge=1)
    """Tokens a forward pass: 512 is fastest on a CPU, a GPU wants 65536."""
    max_words: int = Field(64, ge=1)
    """Words of an image's text that are read; tags come first, then title, then description."""
    device: str = "cpu"
    """Torch device of every worker."""
    threads: int = Field(1, ge=1)
    """Threads of one task; more only where a task has more than one core."""

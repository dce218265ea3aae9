"""Where a user's tables are."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.config.base import Params


class Source(Params):
    """One input table: files at ``path``, or a catalog ``table``."""

    path: str | None = None
    """File, folder or URI. `package://pipeline.demo/data/x.parquet` names a file of the project."""
    table: str | None = None
    """Catalog name, for tables that Spark's catalog knows."""
    format: str = "parquet"
    """Spark data source of `path`."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of the data source."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Contract column -> Spark SQL expression over the table's own columns, where names differ."""
    snapshot: str | None = None
    """Identity of the content. Needed for a catalog table; files have one of their own."""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.path is None) == (self.table is None):
            raise ValueError("give either path or table")
        if self.table is not None and self.snapshot is None:
            raise ValueError(f"table {self.table!r}: a catalog table needs a snapshot name")
        return self


def _seeds() -> Source:
    return Source(
        path="package://pipeline.config/taxonomy/interest_seed_terms.csv",
        format="csv",
        options={"header": "true"},
    )


def _taxonomy() -> Source:
    return Source(
        path="package://pipeline.config/taxonomy/l1_interests.txt",
        format="text",
        columns={"l1_interest": "value"},
    )


def _pair_models() -> Source:
    return Source(
        path="package://pipeline.demo/data/pair_models.jsonl",
        format="text",
        columns={"model": "value"},
    )


class Inputs(Params):
    """The input tables; what is absent is computed or left out, as each field says."""

    images: Source | None = None
    """Images with their text."""
    terms: Source | None = None
    """The term dictionary."""
    annotations_long: Source | None = None
    """Annotations, one row each."""
    annotations_nested: Source | None = None
    """Annotations, one row an image. With neither form, `predict_annotations` makes them."""
    image_embeddings: Source | None = None
    """Production embeddings. Absent: `embed_images` computes them."""
    term_embeddings: Source | None = None
    """Text embeddings of terms. Absent: `embed_terms` computes them."""
    taxonomy: Source = Field(default_factory=_taxonomy)
    """Names of the L1 interests."""
    interest_seeds: Source = Field(default_factory=_seeds)
    """Labelled terms that train the term classifier."""
    term_interests: Source | None = None
    """Given interests of terms, in place of the classifier."""
    image_interests: Source | None = None
    """Given interests of images, in place of the classifier."""
    image_interest_seeds: Source | None = None
    """Labelled images that train the image classifier."""
    image_interactions: Source | None = None
    """Interaction counts; the image classifier uses them where given."""
    validation_images: Source | None = None
    """Evaluation images that must not overlap with the release. Absent: none."""
    blocked_images: Source | None = None
    """Opt-outs. Absent: none."""
    labelled_annotations: Source | None = None
    """Judged annotations, for `calibrate_threshold`."""
    boundary_evaluations: Source | None = None
    """A proxy evaluation of decision boundaries, shown beside what each keeps."""
    pair_models: Source = Field(default_factory=_pair_models)
    """Models that verify near-duplicates: the packaged ones, or those of `fit_pair_model`."""

    @model_validator(mode="after")
    def _one_form(self) -> Inputs:
        if self.annotations_long is not None and self.annotations_nested is not None:
            raise ValueError("give annotations_long or annotations_nested, not both")
        return self

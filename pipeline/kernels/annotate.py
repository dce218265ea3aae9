"""Confidence of dictionary terms found in an image's text: scoring of `predict_annotations`.

A candidate (image, term) gets one probability for each field it stands in, from a logistic model
over a few features; the fields are combined as independent witnesses,
``1 - prod_f (1 - q_f)``, which is how agreement of several fields raises the confidence.

How the model is fitted and calibrated, without any hand label, is told in
``pipeline.kernels.annotate_fit``. A model is numbers only and travels as a table.

Cost: ~0.3 us a candidate and field; matching (``pipeline.kernels.lexicon``) dominates.

Source: SPEC I5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.lexicon import NUM_FIELDS, Candidates
from pipeline.kernels.nested import FlatAnnotations, nest_annotations

FEATURES: Final = (
    "is_description",  # title is the base
    "is_tags",
    "is_exact",  # the whole title, description or one whole tag
    "is_covered",  # every occurrence stands inside a longer dictionary term
    "num_words",  # words of the term, at most 4
    "idf",  # ln((N + 1) / (document frequency + 1))
    "agreement",  # cosine of the term's embedding and the text's
    "log_field_words",  # ln(1 + words of the field): a long description says many things in passing
    "by_description",  # the field asked to confirm; title is the base. Nuisance, as the next two
    "by_tags",
    "log_witness_words",  # ln(1 + words of the field asked to confirm)
)
_AGREEMENT: Final = FEATURES.index("agreement")
_WITNESS: Final = FEATURES.index("by_description")
MAX_WORDS: Final = 4
"""Terms of more words count as this long."""


@dataclass(frozen=True)
class AnnotatorModel:
    """Parameters of the confidence.

    Attributes:
        mean: float64 (num features,), subtracted; also what a missing agreement is worth.
        scale: float64 (num features,), divided by.
        coefficient: float64 (num features,), of the standardised features.
        intercept: of the logistic model.
        knot_x: float64 (num knots,), ascending; raw probability ...
        knot_y: float64 (num knots,), ... and what it is calibrated to, linear in between.
        ceiling: float64 (3,), by witness: probability that this field confirms a candidate that is
            as sure as text can make it; 0 for a field that was never asked.
        witness_words: float64 (3,), typical ln(1 + words) of each field when asked.
        anchor_precision: confidence given at the ceiling.
        document_frequency: int64 (max term_id + 1,), images with the term, out of ...
        num_images: ... this many images.
        is_calibrated: False for the prior model, used where nothing can be calibrated on.
        metrics: figures of the fit on its held-out half.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficient: NDArray[np.float64]
    intercept: float
    knot_x: NDArray[np.float64]
    knot_y: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    witness_words: NDArray[np.float64]
    anchor_precision: float
    document_frequency: NDArray[np.int64]
    num_images: int
    is_calibrated: bool
    metrics: dict[str, float] = field(default_factory=dict)

    def to_table(self) -> pa.Table:
        """Rows (name string, index int32, value double), ascending; single numbers have index 0."""
        rows: list[tuple[str, int, float]] = []
        for name in _ARRAYS:
            rows += [(name, i, float(v)) for i, v in enumerate(getattr(self, name))]
        rows += [(name, 0, float(getattr(self, name))) for name in _NUMBERS]
        rows += [(f"metric:{name}", 0, value) for name, value in self.metrics.items()]
        frequency = self.document_frequency
        known = np.flatnonzero(frequency)
        rows += [("document_frequency", int(t), float(frequency[t])) for t in known]
        rows.append(("num_term_ids", 0, float(len(frequency))))
        names, index, values = zip(*sorted(rows), strict=True)
        return pa.table(
            {
                "name": pa.array(names, pa.string()),
                "index": pa.array(index, pa.int32()),
                "value": pa.array(values, pa.float64()),
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> AnnotatorModel:
        """The model that ``to_table`` wrote; row order does not matter.

        Raises:
            ValueError: a number is missing.
        """
        groups: dict[str, dict[int, float]] = {}
        for row in table.to_pylist():
            groups.setdefault(row["name"], {})[row["index"]] = row["value"]
        missing = [n for n in (*_ARRAYS, *_NUMBERS, "num_term_ids") if n not in groups]
        if missing:
            raise ValueError(f"annotator model: no rows named {missing}, expected them all.")
        arrays = {n: np.array([groups[n][i] for i in range(len(groups[n]))]) for n in _ARRAYS}
        frequency = np.zeros(int(groups["num_term_ids"][0]), np.int64)
        for term, count in groups.get("document_frequency", {}).items():
            frequency[term] = int(count)
        return cls(
            **arrays,
            intercept=groups["intercept"][0],
            anchor_precision=groups["anchor_precision"][0],
            document_frequency=frequency,
            num_images=int(groups["num_images"][0]),
            is_calibrated=bool(groups["is_calibrated"][0]),
            metrics={n[7:]: v[0] for n, v in sorted(groups.items()) if n.startswith("metric:")},
        )


_ARRAYS: Final = ("mean", "scale", "coefficient", "knot_x", "knot_y", "ceiling", "witness_words")
_NUMBERS: Final = ("intercept", "anchor_precision", "num_images", "is_calibrated")


def prior_annotator(
    document_frequency: NDArray[np.int64], num_images: int, anchor_precision: float = 0.95
) -> AnnotatorModel:
    """Model for corpora with a single text field, where no field can confirm another (A).

    Its numbers are a ranking by common sense (whole tags and rare, long terms first), not a
    calibration; ``is_calibrated`` is False and `calibrate_threshold` should choose the threshold.
    """
    return AnnotatorModel(
        mean=np.array([0, 0, 0, 0, 1, 6, 0.3, 2, 0, 0, 2], float),
        scale=np.array([1, 1, 1, 1, 1, 2, 0.15, 1, 1, 1, 1], float),
        coefficient=np.array([-0.5, 0.5, 1.0, -1.0, 0.3, 0.3, 0.8, -0.3, 0.0, 0.0, 0.0]),
        intercept=0.5,
        knot_x=np.array([0.0, 1.0]),
        knot_y=np.array([0.0, 1.0]),
        ceiling=np.ones(NUM_FIELDS),
        witness_words=np.full(NUM_FIELDS, 2.0),
        anchor_precision=anchor_precision,
        document_frequency=np.asarray(document_frequency, np.int64),
        num_images=num_images,
        is_calibrated=False,
    )


def score_candidates(
    model: AnnotatorModel,
    candidates: Candidates,
    num_words_of: NDArray[np.integer],
    agreement: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Confidence of each candidate.

    Args:
        model: fitted or prior model.
        candidates: matches of a batch.
        num_words_of: words of each term, indexed by term_id (``Lexicon.num_words_of``).
        agreement: cosine of each candidate's term with the image's text, shape (n,); NaN or None
            where unknown.

    Returns:
        float32 of shape (n,), in [0, 1].
    """
    doubt = np.ones(len(candidates.row))
    for f in range(NUM_FIELDS):
        at = np.flatnonzero(candidates.found & (1 << f))
        x = field_features(model, candidates, at, f, num_words_of, agreement)
        doubt[at] *= 1.0 - field_confidence(model, x, f)
    return (1.0 - doubt).astype(np.float32)


def field_confidence(
    model: AnnotatorModel, features: NDArray[np.float64], field_index: int
) -> NDArray[np.float64]:
    """What one field says: ``q_f = anchor_precision * mean_w min(1, g_w / ceiling_w)``.

    ``g_w`` is the calibrated probability that another field w of typical length confirms the
    candidate: how much text there is to confirm it says nothing about whether it is right.

    Args:
        model: parameters.
        features: float64 (m, num features), raw; the witness columns are not read.
        field_index: the field f.

    Returns:
        float64 of shape (m,), in [0, anchor_precision].
    """
    asked = np.flatnonzero(model.ceiling > 0)
    witnesses = asked[asked != field_index] if (asked != field_index).any() else asked
    total = np.zeros(len(features))
    for w in witnesses.tolist():
        chance = calibrated(model, with_witness(features, w, model.witness_words[w]))
        total += np.minimum(chance / model.ceiling[w], 1.0)
    return np.asarray(model.anchor_precision * total / len(witnesses))


def with_witness(
    features: NDArray[np.float64], witness: int, log_words: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """A copy of the features with the three columns of the confirming field filled in."""
    filled = features.copy()
    filled[:, _WITNESS] = witness == 1
    filled[:, _WITNESS + 1] = witness == 2
    filled[:, _WITNESS + 2] = log_words
    return filled


def calibrated(model: AnnotatorModel, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Calibrated probability that another field confirms the candidate; shape (m,)."""
    standard = (features - model.mean) / model.scale
    # not `@`: BLAS may sum in another order for another number of rows
    logit = np.einsum("nf,f->n", standard, model.coefficient, optimize=False) + model.intercept
    raw = 1.0 / (1.0 + np.exp(-np.clip(logit, -40.0, 40.0)))
    return np.asarray(np.interp(raw, model.knot_x, model.knot_y))


def field_features(
    model: AnnotatorModel,
    candidates: Candidates,
    at: NDArray[np.integer],
    field_index: int,
    num_words_of: NDArray[np.integer],
    agreement: NDArray[np.floating] | None,
) -> NDArray[np.float64]:
    """Raw features of some candidates as seen in one field.

    Args:
        model: gives document frequencies and the value of a missing agreement.
        candidates: matches of a batch.
        at: positions among them, shape (m,).
        field_index: field in which all of them were found.
        num_words_of: words of each term, indexed by term_id.
        agreement: float (n,) or None.

    Returns:
        float64 of shape (m, num features), columns as in ``FEATURES``, the witness's zero.
    """
    term, row, bit = candidates.term_id[at], candidates.row[at], np.uint8(1 << field_index)
    inside = term < len(model.document_frequency)
    frequency = np.where(
        inside, model.document_frequency[np.where(inside, term, 0)] if inside.any() else 0, 0
    )
    words = candidates.field_words[row].astype(np.float64)
    x = np.zeros((len(at), len(FEATURES)))
    x[:, 0] = field_index == 1
    x[:, 1] = field_index == 2
    x[:, 2] = (candidates.exact[at] & bit) > 0
    x[:, 3] = (candidates.free[at] & bit) == 0
    x[:, 4] = np.minimum(num_words_of[term], MAX_WORDS)
    x[:, 5] = np.log((model.num_images + 1) / (frequency + 1))
    cosine = np.full(len(at), np.nan) if agreement is None else agreement[at].astype(np.float64)
    x[:, _AGREEMENT] = np.where(np.isnan(cosine), model.mean[_AGREEMENT], cosine)
    x[:, 7] = np.log1p(words[:, field_index])
    return x


def to_nested(
    row: NDArray[np.integer],
    term_id: NDArray[np.integer],
    score: NDArray[np.floating],
    num_rows: int,
) -> pa.ListArray:
    """Annotations as one list an image.

    Args:
        row, term_id, score: shape (n,), ascending by (row, term_id), no repeats.
        num_rows: images; rows without annotations get an empty list.

    Returns:
        list<struct<term_id: int32, score: float>> of length num_rows.
    """
    offsets = np.r_[0, np.cumsum(np.bincount(row, minlength=num_rows))].astype(np.int64)
    flat = FlatAnnotations(offsets, term_id.astype(np.int32), score.astype(np.float32))
    return nest_annotations(flat)

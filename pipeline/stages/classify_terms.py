"""L1 interests of every term (paper section 3.2.1; SPEC L2).

Cost at 1.329 billion images: does not depend on them; 218,879 terms, their
kernels to 5,786 seeds (1.2 TFlop), minutes of one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.labels import ClassifyTermsParams
from pipeline.kernels.align import positions_of
from pipeline.kernels.interests import InterestModel, assign, predict
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import to_matrix
from pipeline.stages.interest_model import read_model
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import TERMS, TEXT_EMBEDDINGS
from schemas.labels import TERM_INTEREST_MODEL, TERM_INTERESTS, UNCATEGORISED_TERMS


@dataclass(frozen=True)
class TermState:
    """What every batch needs: the classifier, and embeddings by text."""

    model: InterestModel
    texts: pa.Array
    vectors: NDArray[np.float32]


def prepare(
    term_interest_model: pa.Table, text_embeddings: pa.Table, params: ClassifyTermsParams
) -> TermState:
    """Read the model."""
    del params
    vectors = to_matrix(text_embeddings["embedding"])
    return TermState(read_model(term_interest_model), one_array(text_embeddings["text"]), vectors)


def classify_batch(terms: pa.Table, state: TermState, params: ClassifyTermsParams) -> BatchResult:
    """Interests above their thresholds; without any, the best one if configured.

    A term without a vector, or with one of zeros, has no interest: ``no_embedding``.
    """
    at = positions_of(terms["text"], state.texts)
    says_something = np.any(state.vectors != 0, axis=1)
    at = np.where((at >= 0) & says_something[at], at, -1)
    known = np.flatnonzero(at >= 0)
    probabilities = predict(state.model, state.vectors[at[known]])
    chosen = assign(
        state.model, probabilities, params.fallback_best, params.min_fallback_probability
    )
    row, interest = np.nonzero(chosen)
    ids = terms["term_id"].to_numpy()
    names = pa.array(list(state.model.interests), pa.string())
    given = pa.table(
        {
            "term_id": pa.array(ids[known[row]]),
            "l1_interest": names.take(pa.array(interest)),
            "probability": pa.array(probabilities[row, interest].astype(np.float32)),
        }
    ).sort_by([("term_id", "ascending"), ("l1_interest", "ascending")])
    without = np.ones(len(ids), bool)
    without[known[row]] = False
    reason = np.where(at[without] < 0, "no_embedding", "below_thresholds")
    uncategorised = pa.table(
        {"term_id": pa.array(ids[without]), "reason": pa.array(reason.tolist(), pa.string())}
    )
    tables = {"term_interests": given, "uncategorised_terms": uncategorised}
    return BatchResult(tables, {"terms.categorised": int((~without).sum())})


STAGE = BatchwiseStage(
    name="classify_terms",
    version=2,
    kernel=classify_batch,
    prepare=prepare,
    params=ClassifyTermsParams,
    aligned=(TERMS,),
    broadcast=(TERM_INTEREST_MODEL, TEXT_EMBEDDINGS),
    outputs=(TERM_INTERESTS, UNCATEGORISED_TERMS),
    ledger=(
        LedgerRule("terms", ("terms",), ("#terms.categorised",), dropped=("uncategorised_terms",)),
    ),
)

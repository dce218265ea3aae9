"""How well a candidate term agrees with the whole text of its image (I5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.lexicon import Candidates


def text_agreement(
    candidates: Candidates,
    term_vectors: NDArray[np.floating],
    text_vectors: NDArray[np.floating],
    chunk: int = 65_536,
) -> NDArray[np.float32]:
    """Cosine of each candidate's term embedding with the embedding of its image's text.

    Args:
        candidates: matches of a batch.
        term_vectors: (max term_id + 1, d), rows of unit length or zero, indexed by term_id.
        text_vectors: (num_rows, d), rows of unit length or zero (no text).
        chunk: candidates a step; bounds the memory to two chunk * d float32 arrays.

    Returns:
        float32 of shape (n,), NaN where either vector is zero.
    """
    result = np.empty(len(candidates.row), np.float32)
    has_term = np.count_nonzero(term_vectors, axis=1) > 0
    has_text = np.count_nonzero(text_vectors, axis=1) > 0
    for begin in range(0, len(result), chunk):
        term = candidates.term_id[begin : begin + chunk]
        row = candidates.row[begin : begin + chunk]
        cosine = np.einsum("nd,nd->n", term_vectors[term], text_vectors[row], optimize=False)
        cosine[~(has_term[term] & has_text[row])] = np.nan
        result[begin : begin + chunk] = cosine
    return result

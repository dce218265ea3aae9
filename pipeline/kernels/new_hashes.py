"""Pairs of hashes of which one is new: a corpus matched against a batch, never against itself.

The batch is what is sorted and indexed, the corpus what is looked up: a corpus of any size passes
by in slices, once.

Source: SPEC-dataset N2; the tables are those of ``block_keys``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.block_keys import TablePlan
from pipeline.kernels.hamming import NearHashes, near_pairs_between


def pairs_with_new(
    corpus: NDArray[np.uint64], new: NDArray[np.uint64], plan: TablePlan
) -> NearHashes:
    """Pairs of a hash of the corpus and another one of the batch, within the radius.

    Time, one core: 20 to 100 ns a hash of the corpus and table, 1.5 ns a candidate.

    Args:
        corpus: uint64 (n,), distinct: a slice of all hashes there are, those of the batch among
            them or not.
        new: uint64 (m,), distinct: the batch.
        plan: ``plan_tables(m, radius)``.

    Returns:
        pairs ordered by (low, high); two hashes of the batch that both stand in the slice once.
    """
    parts = [near_pairs_between(corpus, new, plan, table) for table in range(plan.num_tables)]
    one = corpus[np.concatenate([part.left for part in parts])]
    two = new[np.concatenate([part.right for part in parts])]
    low, high = np.minimum(one, two), np.maximum(one, two)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    is_first = np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])][: len(low)]
    kept = is_first & (low != high)
    low, high = low[kept], high[kept]
    return NearHashes(low, high, np.bitwise_count(low ^ high))

"""Pairs of a cell of which one vector is new, equal to what the whole cell's search would add.

Source: SPEC-dataset N2; the pairs are those of ``cells.cosine_pairs``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.cells import CosinePairs, absorb_hot, cosine_pairs, cosine_pairs_between


def is_hot(x: NDArray[np.float32], cosine: float) -> bool:
    """Whether a cell has a star (``cells.absorb_hot``), by which its pairs depend on all members.

    Args:
        x: float32 (n, d), unit rows, ordered by id.
        cosine: least cosine to a leader.
    """
    return bool(np.any(absorb_hot(x, cosine) != np.arange(len(x))))


def new_cosine_pairs(
    x: NDArray[np.float32],
    is_new: NDArray[np.bool_],
    tau: float,
    cells: NDArray[np.int32],
    cell: int,
) -> CosinePairs:
    """Pairs of one cell with cosine >= tau of which at least one row is new.

    Args:
        x: float32 (n, d), unit rows: the members of the cell.
        is_new: bool (n,).
        tau: least cosine.
        cells: int32 (n, p), cells of each row; a pair is reported by the lowest that both share.
        cell: the cell these rows are the members of.

    Returns:
        Pairs as positions in ``x``, each once, in no particular order.
    """
    new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    within = cosine_pairs(x[new], tau, cells=cells[new], cell=cell)
    between = cosine_pairs_between(
        x[new], x[old], tau, cells_a=cells[new], cells_b=cells[old], cell=cell
    )
    return CosinePairs(
        np.r_[new[within.left], new[between.left]],
        np.r_[new[within.right], old[between.right]],
        np.r_[within.cosine, between.cosine],
    )

"""Refusal of vectors that are no numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def require_finite(matrix: NDArray[np.floating], name: str) -> None:
    """Check that a matrix has no NaN and no infinite value.

    Args:
        matrix: (n, d).
        name: what it is, for the message.

    Raises:
        ValueError: naming the number of bad rows and the first of them.
    """
    # NaN and infinities survive a sum: one pass without a mask of the matrix's size. A sum that
    # overflowed by itself is looked at row by row.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(matrix.sum()):
            return
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name}: {int(bad.sum())} rows with NaN or infinite values (first: row "
            f"{int(np.argmax(bad))}), expected finite numbers; ingest sets such rows aside."
        )

"""Values of columns whose rows are being checked, safe to compute with.

Source: SPEC I2, I3.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.reasons import RowReason
from pipeline.kernels.row_checks import RowChecker, to_mask
from pipeline.kernels.text import normalise_texts


def integers(array: pa.Array) -> NDArray[np.int64]:
    """Integers of a column, 0 for null."""
    filled = pc.fill_null(array.cast(pa.int64()), 0)
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.int64)


def safe(checker: RowChecker, name: str) -> pa.Array:
    """A text column with an empty string for null and for rows already set aside."""
    column = checker.column(name)
    if pa.types.is_null(column.type):
        return pa.array([""] * len(column), pa.string())
    kept = pc.if_else(pa.array(checker.ok), column.cast(pa.large_binary()), b"")
    return pc.fill_null(kept, b"").cast(pa.string())


def normalised(checker: RowChecker, name: str) -> pa.Array:
    """Normalised text; rows of which nothing is left are set aside."""
    texts = normalise_texts(safe(checker, name))
    checker.reject(to_mask(pc.equal(texts, "")), RowReason.EMPTY_TEXT)
    return texts

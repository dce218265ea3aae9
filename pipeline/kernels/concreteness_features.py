"""From production embeddings to the features of concreteness probes.

Rows are scaled to length 1 (an embedding's length tells how busy a picture is, not what it shows),
columns are standardised by the statistics of the shared pool; of embeddings wider than
``max_components`` the leading principal components are kept, on one scale. A probe of a few hundred
examples then has fewer weights to fit by chance, and costs less. Components keep their variances:
whitening them blows up the noise of the last ones (measured on photos, DESIGN section 22).

Source: SPEC C2 ("embeddings standardised").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SLICE = 16_384
"""Rows whose covariance is summed at once."""
_BLOCK = 512
"""Rows standardised at once: they fit a second-level cache."""
_CONSTANT = 1e-7
"""Deviation of a column, of rows of length 1, that is rounding."""


@dataclass(frozen=True)
class Preparation:
    """Rows to length 1, then an affine map, fitted to the pool.

    Attributes:
        mean: float32 (d,) of the rows of length 1.
        scale: float32 (d,), standard deviation, 1 where a column is constant.
        rotation: float32 (d, c), components by falling variance, scaled so that features have a
            mean square of 1 over the pool; None where all columns are kept as they are.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    rotation: NDArray[np.float32] | None

    @classmethod
    def fit(cls, raw: NDArray[np.float32], max_components: int) -> Preparation:
        """Statistics of a pool.

        Args:
            raw: float32 (P, d), finite.
            max_components: c, where d is larger; 0 keeps all columns.
        """
        rows = _unit_rows(raw)
        scale = rows.std(axis=0, dtype=np.float64)
        scale[scale <= _CONSTANT] = 1.0
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        del rows
        plain = cls(mean, scale.astype(np.float32), None)
        if max_components == 0 or raw.shape[1] <= max_components:
            return plain
        covariance = np.zeros((raw.shape[1], raw.shape[1]))
        for first in range(0, len(raw), _SLICE):
            z = plain.apply(raw[first : first + _SLICE])
            covariance += z.T @ z
        variances, vectors = np.linalg.eigh(covariance / len(raw))
        leading = vectors[:, ::-1][:, :max_components]
        # The sign of an eigenvector is the solver's whim: let its largest entry be positive.
        largest = np.abs(leading).argmax(axis=0)
        leading = leading * np.sign(leading[largest, np.arange(max_components)])
        kept = max(float(variances[-max_components:].mean()), 1e-30)
        rotation = (leading / kept**0.5).astype(np.float32)
        return cls(plain.mean, plain.scale, np.ascontiguousarray(rotation))

    @property
    def width(self) -> int:
        """d, the width of raw embeddings."""
        return len(self.mean)

    def apply(self, raw: NDArray[np.floating]) -> NDArray[np.float32]:
        """Features, float32 (n + 1, c); the last row is zero, for padding."""
        out = np.zeros((len(raw) + 1, self.width), np.float32)
        for first in range(0, len(raw), _BLOCK):
            part = raw[first : first + _BLOCK]
            rows = out[first : first + len(part)]
            np.multiply(part, _inverse_lengths(part)[:, None], out=rows, casting="same_kind")
            rows -= self.mean
            rows /= self.scale
        return out if self.rotation is None else out @ self.rotation


def _unit_rows(raw: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1; zero rows stay zero."""
    return np.asarray(raw * _inverse_lengths(raw)[:, None], np.float32)


def _inverse_lengths(raw: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 / length of each row (n,), 1 for zero rows."""
    length = np.sqrt(np.einsum("nd,nd->n", raw, raw))
    return np.asarray(1 / np.where(length > 0, length, 1))

"""Kernel ridge regression with a Gaussian kernel, all outputs and all held-out values at once.

One inverse serves every output, and the values of examples held out of the fit follow from it in
closed form, fold by fold, without another fit: with G = (K + ridge I)^-1 and a = G Y, the residual
of a block b that the fit has not seen is G_bb^-1 a_b.

Source: An, Liu, Venkatesh 2007, "Fast cross-validation algorithms for least squares support vector
machine and kernel ridge regression".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.linalg.lapack import dpotrf, dpotri

_ROWS = 256
"""Rows of one product. All products have this shape, for BLAS rounds differently in others."""


@dataclass(frozen=True)
class KernelFit:
    """Fit of m examples to L outputs.

    Attributes:
        inverse: float64 (m, m), of the kernel matrix plus ridge.
        targets: float64 (m, L).
        weights: float64 (m, L); a value is the kernel to the examples times these.
    """

    inverse: NDArray[np.float64]
    targets: NDArray[np.float64]
    weights: NDArray[np.float64]

    def held_out(self, output: int, fold: NDArray[np.int32]) -> NDArray[np.float64]:
        """Values (m,) of one output for examples of each fold by fits without that fold."""
        target, weight = self.targets[:, output], self.weights[:, output]
        value = np.empty(len(target))
        for f in range(int(fold.max()) + 1):
            rows = np.flatnonzero(fold == f)
            block = self.inverse[np.ix_(rows, rows)]
            value[rows] = target[rows] - solve(block, weight[rows], assume_a="pos")
        return value


def fit_kernel(
    x: NDArray[np.float64], targets: NDArray[np.floating], gamma: float, ridge: float
) -> KernelFit:
    """Fit.

    Args:
        x: (m, d); m squared numbers are held three times.
        targets: (m, L).
        gamma: of exp(-gamma |x - y|^2), > 0.
        ridge: added to the diagonal, > 0.
    """
    square = np.einsum("nd,nd->n", x, x)
    kernel = np.exp(-gamma * np.maximum(square[:, None] + square - 2 * (x @ x.T), 0))
    kernel[np.diag_indices_from(kernel)] = 1 + ridge
    inverse = _inverse(kernel)
    y = np.asarray(targets, np.float64)
    return KernelFit(inverse, y, inverse @ y)


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a symmetric positive definite matrix: a third of the work of solving for it."""
    factor, failed = dpotrf(matrix, lower=1, clean=1)
    inverse, singular = dpotri(factor, lower=1, overwrite_c=1)
    assert failed == singular == 0, "the ridge keeps the matrix positive definite"
    return np.asarray(np.tril(inverse) + np.tril(inverse, -1).T, np.float64)


def kernel_values(
    x: NDArray[np.floating],
    examples: NDArray[np.floating],
    weights: NDArray[np.float64],
    gamma: float,
) -> NDArray[np.float64]:
    """Values (n, L) of rows; a row's value does not depend on the rows it comes with.

    Args:
        x: (n, d).
        examples: (m, d), of the fit.
        weights: (m, L).
        gamma: of the fit.
    """
    landmarks = np.asarray(examples, np.float64)
    square = np.einsum("md,md->m", landmarks, landmarks)
    result = np.empty((len(x), weights.shape[1]))
    for start in range(0, len(x), _ROWS):
        rows = np.zeros((_ROWS, landmarks.shape[1]))
        part = x[start : start + _ROWS]
        rows[: len(part)] = part
        own = np.einsum("nd,nd->n", rows, rows)
        distance = np.maximum(own[:, None] + square - 2 * (rows @ landmarks.T), 0)
        result[start : start + _ROWS] = (np.exp(-gamma * distance) @ weights)[: len(part)]
    return result

"""Closed-form ridge probes, many at once: a fast stand-in for the MLP in sweeps.

Source: SPEC C4; Hoerl, Kennard 1970.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from pipeline.kernels.products import multiply_own


def fit_ridge(
    x_BRD: Tensor, target_BR: Tensor, mask_BR: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Least squares with an L2 penalty on the weights and a free intercept.

    Minimises sum (x w + b - target)^2 + alpha |w|^2 over the unmasked rows of each probe, in the
    type of ``x_BRD``.

    Args:
        x_BRD: features; padded rows are zero.
        target_BR: targets, here +1 and -1.
        mask_BR: 1 for rows, 0 for padding.
        alpha: penalty, > 0: the normal equations then always have a solution.

    Returns:
        (w_BD, b_B).

    Raises:
        ValueError: alpha <= 0, or LAPACK finds no solution.
    """
    if not alpha > 0:
        raise ValueError(f"ridge alpha: found {alpha}, expected > 0.")
    count_B1 = mask_BR.sum(dim=1, keepdim=True)
    # Sums over the rows as they stand (padded ones are zero), centred afterwards: no centred copy
    # of the rows is made, which takes as long as the product itself.
    both_B2R = torch.stack([mask_BR, target_BR * mask_BR], dim=1)
    sums_B2D = x_BRD.new_empty(len(x_BRD), 2, x_BRD.shape[2])
    gram_BDD = x_BRD.new_empty(len(x_BRD), x_BRD.shape[2], x_BRD.shape[2])
    multiply_own(x_BRD, both_B2R, gram_BDD, sums_B2D)
    mean_B1D = sums_B2D[:, :1] / count_B1[:, :, None]
    target_mean_B1 = both_B2R[:, 1].sum(dim=1, keepdim=True) / count_B1
    gram_BDD.sub_(mean_B1D.transpose(1, 2) * (mean_B1D * count_B1[:, :, None]))
    gram_BDD.diagonal(dim1=1, dim2=2).add_(alpha)
    moment_BD1 = (sums_B2D[:, 1] - target_mean_B1 * sums_B2D[:, 0])[:, :, None]
    w_BD = _solve(gram_BDD, moment_BD1)
    return w_BD, target_mean_B1[:, 0] - (mean_B1D[:, 0] * w_BD).sum(dim=1)


def _solve(gram_BDD: Tensor, moment_BD1: Tensor) -> Tensor:
    """Solution of each system of normal equations, (B, D)."""
    if gram_BDD.device.type != "cpu":
        return torch.cholesky_solve(moment_BD1, torch.linalg.cholesky(gram_BDD))[:, :, 0]
    # LAPACK's own: torch copies the triangles around it, which takes longer than the solution.
    grams, moments = gram_BDD.numpy(), moment_BD1.numpy()
    posv = _posv(grams.dtype)
    found = np.empty(grams.shape[:2], grams.dtype)
    for gram, moment, into in zip(grams, moments, found, strict=True):
        _, solution, info = posv(gram.T, moment, lower=True, overwrite_a=True)
        if info:
            raise ValueError(f"ridge: the normal equations have no solution (posv: {info}).")
        into[:] = solution[:, 0]
    return torch.from_numpy(found)


@lru_cache(maxsize=2)
def _posv(dtype: np.dtype[np.floating]) -> Callable[..., tuple[Any, NDArray[np.floating], int]]:
    """LAPACK's solver of symmetric positive definite systems, of a type."""
    posv: Callable[..., tuple[Any, NDArray[np.floating], int]]
    posv = get_lapack_funcs("posv", dtype=dtype)
    return posv


def predict_ridge(x_RD: Tensor, w_D: Tensor, bias: Tensor) -> Tensor:
    """Decision values of one probe, shape (R,); > 0 means positive."""
    return x_RD @ w_D + bias

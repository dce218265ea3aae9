"""Closed-form ridge probes, many at once: a fast stand-in for the MLP in sweeps.

Source: SPEC C4; Hoerl, Kennard 1970.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 64
"""Columns of a block of the Gram matrix."""


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
        ValueError: alpha <= 0.
    """
    if not alpha > 0:
        raise ValueError(f"ridge alpha: found {alpha}, expected > 0.")
    count_B1 = mask_BR.sum(dim=1, keepdim=True)
    # Sums over the rows as they stand (padded ones are zero), centred afterwards: no centred copy
    # of the rows is made, which takes as long as the product itself.
    both_B2R = torch.stack([mask_BR, target_BR * mask_BR], dim=1)
    sums_B2D = torch.bmm(both_B2R, x_BRD)
    mean_B1D = sums_B2D[:, :1] / count_B1[:, :, None]
    target_mean_B1 = both_B2R[:, 1].sum(dim=1, keepdim=True) / count_B1
    gram_BDD = _lower_gram(x_BRD)
    gram_BDD.baddbmm_(mean_B1D.transpose(1, 2) * -count_B1[:, :, None], mean_B1D)
    gram_BDD.diagonal(dim1=1, dim2=2).add_(alpha)
    moment_BD1 = (sums_B2D[:, 1] - target_mean_B1 * sums_B2D[:, 0])[:, :, None]
    w_BD1 = torch.cholesky_solve(moment_BD1, torch.linalg.cholesky(gram_BDD))
    bias_B = target_mean_B1[:, 0] - torch.bmm(mean_B1D, w_BD1)[:, 0, 0]
    return w_BD1[:, :, 0], bias_B


def _lower_gram(x_BRD: Tensor) -> Tensor:
    """x^T x, shape (B, D, D), block by block from the diagonal down; zero above those blocks.

    A Cholesky factorisation reads the lower triangle alone: with 4 blocks of columns that is 10 of
    16 blocks.
    """
    num_features = x_BRD.shape[2]
    gram_BDD = x_BRD.new_zeros(len(x_BRD), num_features, num_features)
    for first in range(0, num_features, _BLOCK):
        columns_BRC = x_BRD[:, :, first : first + _BLOCK]
        below_BRE = x_BRD[:, :, first:]
        product_BEC = torch.bmm(below_BRE.transpose(1, 2), columns_BRC)
        gram_BDD[:, first:, first : first + _BLOCK] = product_BEC
    return gram_BDD


def predict_ridge(x_RD: Tensor, w_D: Tensor, bias: Tensor) -> Tensor:
    """Decision values of one probe, shape (R,); > 0 means positive."""
    return x_RD @ w_D + bias

"""Closed-form ridge probes, many at once: a fast stand-in for the MLP in sweeps.

Source: SPEC C4; Hoerl, Kennard 1970.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fit_ridge(
    x_BRD: Tensor, target_BR: Tensor, mask_BR: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Least squares with an L2 penalty on the weights and a free intercept.

    Minimises sum (x w + b - target)^2 + alpha |w|^2 over the unmasked rows of each probe, in the
    type of ``x_BRD``.

    Args:
        x_BRD: features; padded rows are ignored.
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
    mean_B1D = torch.bmm(mask_BR[:, None, :], x_BRD) / count_B1[:, :, None]
    target_mean_B1 = (target_BR * mask_BR).sum(dim=1, keepdim=True) / count_B1
    centred_BRD = (x_BRD - mean_B1D) * mask_BR[:, :, None]
    residual_BR1 = ((target_BR - target_mean_B1) * mask_BR)[:, :, None]
    gram_BDD = torch.bmm(centred_BRD.transpose(1, 2), centred_BRD)
    gram_BDD.diagonal(dim1=1, dim2=2).add_(alpha)
    moment_BD1 = torch.bmm(centred_BRD.transpose(1, 2), residual_BR1)
    w_BD1 = torch.cholesky_solve(moment_BD1, torch.linalg.cholesky(gram_BDD))
    bias_B = target_mean_B1[:, 0] - torch.bmm(mean_B1D, w_BD1)[:, 0, 0]
    return w_BD1[:, :, 0], bias_B


def predict_ridge(x_BRD: Tensor, w_BD: Tensor, bias_B: Tensor) -> Tensor:
    """Decision values of shape (B, R); > 0 means positive."""
    return torch.bmm(x_BRD, w_BD[:, :, None])[:, :, 0] + bias_B[:, None]

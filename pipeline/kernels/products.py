"""Batches of matrix products whose bits do not depend on the batch.

On a CPU every product is a BLAS call of its own: `torch.bmm` takes another path for one matrix than
for several, with other rounding. float32 goes to numpy's OpenBLAS, which on AMD processors is a
tenth faster than the MKL inside torch and knows x^T x for half a product. On other devices the
batch is one call.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def multiply(a_BMK: Tensor, b_BKN: Tensor, out_BMN: Tensor) -> None:
    """out[i] = a[i] @ b[i] for each i.

    Args:
        a_BMK: left sides; views are fine.
        b_BKN: right sides, of the same type.
        out_BMN: results, in that type or a wider one.
    """
    if a_BMK.device.type != "cpu":
        out_BMN.copy_(torch.bmm(a_BMK, b_BKN))
    elif a_BMK.dtype == out_BMN.dtype and a_BMK.dtype in (torch.float32, torch.float64):
        for a, b, out in zip(a_BMK.numpy(), b_BKN.numpy(), out_BMN.numpy(), strict=True):
            np.matmul(a, b, out=out)
    else:
        for left, right, into in zip(a_BMK, b_BKN, out_BMN, strict=True):
            into.copy_(torch.mm(left, right))

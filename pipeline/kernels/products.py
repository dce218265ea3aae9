"""Batches of matrix products whose bits do not depend on the batch.

On a CPU a batch is one call of `torch.bmm` where that gives each product the bits that it has
alone, and one BLAS call a product elsewhere. It is asked once a shape and process, by trying: some
libraries take another path for one matrix than for several, with other rounding, and say so
nowhere. On other devices a batch is one call.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_TRIED = (2, 3, 8, 17)
"""Sizes of batches whose products are compared with those made alone; a stage has up to 16."""


def multiply(a_BMK: Tensor, b_BKN: Tensor, out_BMN: Tensor) -> None:
    """out[i] = a[i] @ b[i] for each i.

    Args:
        a_BMK: left sides; views are fine.
        b_BKN: right sides, of the same type.
        out_BMN: results, in that type or a wider one.
    """
    if a_BMK.device.type != "cpu" or _is_free(a_BMK, b_BKN):
        if a_BMK.dtype == out_BMN.dtype:
            torch.bmm(a_BMK, b_BKN, out=out_BMN)
        else:
            out_BMN.copy_(torch.bmm(a_BMK, b_BKN))
    elif a_BMK.dtype == out_BMN.dtype and a_BMK.dtype in (torch.float32, torch.float64):
        for a, b, out in zip(a_BMK.numpy(), b_BKN.numpy(), out_BMN.numpy(), strict=True):
            np.matmul(a, b, out=out)
    else:
        for left, right, into in zip(a_BMK, b_BKN, out_BMN, strict=True):
            into.copy_(torch.mm(left, right))


def multiply_own(x_BRD: Tensor, rows_BLR: Tensor, own_BDD: Tensor, sums_BLD: Tensor) -> None:
    """own[i] = x[i]^T @ x[i] and sums[i] = rows[i] @ x[i] for each i, float32 or float64.

    On a CPU by numpy, whose OpenBLAS makes half of a symmetric product and copies the other; the
    few sums follow while x[i] is in the caches.
    """
    if x_BRD.device.type != "cpu":
        torch.bmm(x_BRD.transpose(1, 2), x_BRD, out=own_BDD)
        torch.bmm(rows_BLR, x_BRD, out=sums_BLD)
        return
    sides = (x_BRD.numpy(), rows_BLR.numpy(), own_BDD.numpy(), sums_BLD.numpy())
    for x, rows, own, sums in zip(*sides, strict=True):
        np.matmul(x.T, x, out=own)
        np.matmul(rows, x, out=sums)


def _is_free(a_BMK: Tensor, b_BKN: Tensor) -> bool:
    return _is_free_of_company(_kind(a_BMK), _kind(b_BKN), torch.get_num_threads())


_Kind = tuple[int, int, bool, torch.dtype]


def _kind(x: Tensor) -> _Kind:
    """What BLAS sees of a side: sizes, order in memory, type."""
    return x.shape[1], x.shape[2], x.stride(1) < x.stride(2), x.dtype


@lru_cache(maxsize=4096)
def _is_free_of_company(left: _Kind, right: _Kind, _threads: int) -> bool:
    """Whether `torch.bmm` gives a product the same bits alone and in any place of a batch."""
    random = torch.Generator().manual_seed(0)

    def side(kind: _Kind) -> Tensor:
        rows, columns, is_transposed, dtype = kind
        sizes = (columns, rows) if is_transposed else (rows, columns)
        x = torch.randn(max(_TRIED), *sizes, generator=random).to(dtype)
        return x.transpose(1, 2) if is_transposed else x

    a, b = side(left), side(right)
    alone = torch.cat([torch.bmm(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
    return all(torch.equal(torch.bmm(a[:size], b[:size]), alone[:size]) for size in _TRIED)

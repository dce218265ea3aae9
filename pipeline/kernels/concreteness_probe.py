"""One model of a concreteness score: which rows of which matrices it trains, validates and tests.

Shapes: S steps an epoch, R rows a step, V validation rows, D features; half of a step's rows and of
the validation rows are positives.

Source: SPEC C1, C2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.concreteness_splits import FoldPlan


@dataclass(frozen=True)
class TermProbe:
    """One model to train: its examples by rank on both sides, and its plan.

    Attributes:
        term_index: row of the result.
        key: (term_id, fold, repeat), draws the starting weights.
        sides: positives and negatives, each as (matrix with a last row of zeros, its rows by rank
            and, at the end, that last row: rank -1).
        plan: which ranks train, validate and test.
    """

    term_index: int
    key: tuple[int, int, int]
    sides: tuple[tuple[Tensor, NDArray[np.int64]], tuple[Tensor, NDArray[np.int64]]]
    plan: FoldPlan

    def load(self, x_SRD: Tensor, mask_SR: Tensor, x_VD: Tensor, mask_V: Tensor) -> None:
        """Rows of training and validation; see `concreteness_train.Probe`."""
        self.gather(self.plan.train, x_SRD, mask_SR)
        if len(x_VD):
            self.gather(self.plan.validation[None], x_VD[None], mask_V[None])

    def gather(self, ranks: NDArray[np.int32], x_SRD: Tensor, mask_SR: Tensor) -> None:
        """Write rows of the given ranks (S, R / 2), positives in the first half of each step and
        zeros where a rank is -1, and the mask: 1 for rows, 0 for zeros. ``x_SRD`` may be of another
        type or device than the matrices."""
        half = ranks.shape[1]
        is_row = torch.from_numpy(ranks >= 0)
        for side, (matrix, rows) in enumerate(self.sides):
            of_side = slice(side * half, (side + 1) * half)
            mask_SR[:, of_side] = is_row
            index = torch.from_numpy(rows[ranks])
            for of_step, part in zip(index, x_SRD[:, of_side], strict=True):
                if part.dtype == matrix.dtype and part.device == matrix.device:
                    torch.index_select(matrix, 0, of_step, out=part)
                else:
                    part.copy_(torch.index_select(matrix, 0, of_step))

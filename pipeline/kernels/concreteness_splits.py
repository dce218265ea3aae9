"""Which examples a probe trains on, in what mini-batch, and which it is tested on.

A term has n positives and n negatives, both in hash order; a row is known by its rank there. The
same plan holds for both sides, so that every mini-batch and every test split is balanced. All
shapes follow from n alone, never from the terms that share a batch: a product of the same matrices
in the same padded shape gives the same bits.

Source: SPEC C2, C5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUND_ROWS = 4
"""Row counts are padded to a multiple of this, so that terms of like support share shapes."""


@dataclass(frozen=True)
class FoldPlan:
    """One probe: ranks in mini-batches and ranks of the test split, -1 where padded.

    Attributes:
        fold: number of the fold, 0 for a plain split.
        train: int32 (num_batches, half), ranks of one side; the same ranks of the other side
            join them.
        test: int32 (half_test,), ranks of one side.
    """

    fold: int
    train: NDArray[np.int32]
    test: NDArray[np.int32]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(num_batches, half, half_test): probes of one shape can be trained together."""
        return (self.train.shape[0], self.train.shape[1], len(self.test))


def plan_folds(
    num_rows: int,
    test_share: float,
    folds_below: int,
    num_folds: int,
    batch_size: int,
    min_batch_size: int,
    batches_per_epoch: int,
) -> list[FoldPlan]:
    """Plans of a term with ``num_rows`` positives and as many negatives.

    Ranks are in hash order, so the first ranks are a random sample: with support of at least
    ``folds_below`` they are the test split. Below it rank r is tested in fold r mod k: every
    positive once, and every fold balanced.

    Args:
        num_rows: n >= 2.
        test_share: share of each side in the test split.
        folds_below: support below which all rows are tested, by folds.
        num_folds: folds there; at most n are used.
        batch_size: most rows of a mini-batch, both sides together.
        min_batch_size: fewest, where ``batches_per_epoch`` would make them smaller.
        batches_per_epoch: wanted number of steps an epoch, so that terms with few examples are
            not left at a handful of Adam steps.

    Raises:
        ValueError: fewer than two rows a side.
    """
    if num_rows < 2:
        raise ValueError(f"plan_folds: {num_rows} rows a side, expected >= 2.")
    ranks = np.arange(num_rows, dtype=np.int32)
    if num_rows >= folds_below:
        num_test = min(max(1, round(num_rows * test_share)), num_rows - 1)
        splits = [ranks < num_test]
    else:
        splits = [ranks % min(num_folds, num_rows) == f for f in range(min(num_folds, num_rows))]
    plans = []
    for fold, is_test in enumerate(splits):
        train = ranks[~is_test]
        num_batches = max(
            -(-2 * len(train) // batch_size),
            min(batches_per_epoch, 2 * len(train) // min_batch_size),
            1,
        )
        # Dealt like cards: batch sizes differ by at most one, and no batch is left empty.
        half = _padded(-(-len(train) // num_batches))
        grid = np.full((half, num_batches), -1, np.int32)
        grid.reshape(-1)[: len(train)] = train
        test = np.full(_padded(int(is_test.sum())), -1, np.int32)
        test[: int(is_test.sum())] = ranks[is_test]
        plans.append(FoldPlan(fold, np.ascontiguousarray(grid.T), test))
    return plans


def _padded(rows: int) -> int:
    return -(-rows // _ROUND_ROWS) * _ROUND_ROWS

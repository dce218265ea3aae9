"""Which examples a probe trains on, in what mini-batch, and which it is tested on.

A term has n positives and n negatives, both in hash order; a row is known by its rank there. The
same plan holds for both sides, so that every mini-batch and every test split is balanced. All
shapes follow from n alone, never from the terms that share a batch: a product of the same matrices
in the same padded shape gives the same bits.

Source: SPEC C2, C5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_ROUND_ROWS = 4
"""Row counts are padded to a multiple of this, so that terms of like support share shapes."""


@dataclass(frozen=True)
class SplitSettings:
    """How examples are split and dealt into mini-batches. Defaults are in the configuration.

    Attributes:
        test_share: share of each side that is held out, where support is high.
        folds_below: support below which every positive is tested, by folds.
        num_folds: folds there, >= 2; at most n are used.
        num_repeats: most rounds of folds there, each with other folds and other negatives.
        max_repeated_rows: rounds are added to the first while the positives of all folds of all
            rounds stay within this, so that a term of low support costs no more than one of high.
        validation_share: share of each side's training rows that early stopping watches, where
            support is high; 0 without early stopping.
        batch_size: most rows of a mini-batch, both sides together.
        min_batch_size: fewest, where ``batches_per_epoch`` would make them smaller.
        batches_per_epoch: wanted steps an epoch, so that terms with few examples are not left at
            a handful of Adam steps.
    """

    test_share: float
    folds_below: int
    num_folds: int
    num_repeats: int
    max_repeated_rows: int
    validation_share: float
    batch_size: int
    min_batch_size: int
    batches_per_epoch: int

    def num_probes(self, num_rows: int) -> int:
        """Probes of a term with ``num_rows`` positives."""
        if num_rows >= self.folds_below:
            return 1
        return min(self.num_folds, num_rows) * self.repeats(num_rows)

    def repeats(self, num_rows: int) -> int:
        """Rounds of folds of a term with ``num_rows`` positives."""
        if num_rows >= self.folds_below:
            return 1
        affordable = self.max_repeated_rows // (min(self.num_folds, num_rows) * num_rows)
        return max(1, min(self.num_repeats, affordable))


@dataclass(frozen=True)
class FoldPlan:
    """One probe: ranks in mini-batches and ranks of the held-out splits, -1 where padded.

    Attributes:
        fold: number of the fold, 0 for a plain split.
        repeat: round of folds, 0 for a plain split; it has negatives of its own.
        train: int32 (num_batches, half), ranks of one side; the same ranks of the other side
            join them.
        validation: int32 (half_validation,), ranks of one side; empty without early stopping.
        test: int32 (half_test,), ranks of one side.
        is_fold: whether it belongs to a cross-validation.
    """

    fold: int
    repeat: int
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]
    is_fold: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(num_batches, half, half_validation, half_test): probes of one can share slots."""
        return (*self.train.shape, len(self.validation), len(self.test))


def plan_folds(num_rows: int, settings: SplitSettings) -> list[FoldPlan]:
    """Plans of a term with ``num_rows`` positives and as many negatives a repeat.

    Ranks are in hash order, so the first ranks are a random sample: with support of at least
    ``folds_below`` they are the test split. Below it every rank is tested once a repeat, in folds
    of like size; the first repeat deals ranks in turn, later ones in a shuffled order.

    Args:
        num_rows: n >= 2.
        settings: see there.

    Raises:
        ValueError: fewer than two rows a side.
    """
    if num_rows < 2:
        raise ValueError(f"plan_folds: {num_rows} rows a side, expected >= 2.")
    ranks = np.arange(num_rows, dtype=np.int32)
    if num_rows >= settings.folds_below:
        num_test = min(max(1, round(num_rows * settings.test_share)), num_rows - 1)
        return [_plan(0, 0, ranks[:num_test], ranks[num_test:], False, settings)]
    num_folds = min(settings.num_folds, num_rows)
    plans = []
    for repeat in range(settings.repeats(num_rows)):
        place = ranks
        if repeat:
            place = np.random.default_rng([repeat, num_rows]).permutation(ranks)
        for fold in range(num_folds):
            is_test = place % num_folds == fold
            whole = replace(settings, validation_share=0.0)
            plans.append(_plan(fold, repeat, ranks[is_test], ranks[~is_test], True, whole))
    return plans


def _plan(
    fold: int,
    repeat: int,
    test: NDArray[np.int32],
    train: NDArray[np.int32],
    is_fold: bool,
    settings: SplitSettings,
) -> FoldPlan:
    num_validation = round(len(train) * settings.validation_share)
    validation, train = train[:num_validation], train[num_validation:]
    num_batches = max(
        -(-2 * len(train) // settings.batch_size),
        min(settings.batches_per_epoch, 2 * len(train) // settings.min_batch_size),
        1,
    )
    # Dealt like cards: batch sizes differ by at most one, and no batch is left empty.
    half = _padded(-(-len(train) // num_batches))
    grid = np.full((half, num_batches), -1, np.int32)
    grid.reshape(-1)[: len(train)] = train
    rows = np.ascontiguousarray(grid.T)
    return FoldPlan(fold, repeat, rows, _filled(validation), _filled(test), is_fold)


def _filled(ranks: NDArray[np.int32]) -> NDArray[np.int32]:
    filled = np.full(_padded(len(ranks)), -1, np.int32)
    filled[: len(ranks)] = ranks
    return filled


def _padded(rows: int) -> int:
    return -(-rows // _ROUND_ROWS) * _ROUND_ROWS

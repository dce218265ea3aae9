"""Settings and result table of the concreteness probes.

Source: SPEC C1, C2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.binomial import standard_error, wilson_lower
from pipeline.kernels.concreteness_splits import SplitSettings

OK = "ok"
TOO_FEW_POSITIVES = "too_few_positives"
TOO_FEW_NEGATIVES = "too_few_negatives"

SCORE_SCHEMA = pa.schema(
    [
        pa.field("term_id", pa.int32(), nullable=False),
        pa.field("concreteness", pa.float64()),
        pa.field("num_positives", pa.int32(), nullable=False),
        pa.field("num_test", pa.int32(), nullable=False),
        pa.field("standard_error", pa.float64()),
        pa.field("wilson_lower", pa.float64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
    ]
)
"""Result of `score_terms`. num_positives: positives used, or those there were if too few; num_test:
test items of one repeat, half of them positives; the three scores are null unless status is ok."""


@dataclass(frozen=True)
class ProbeSettings:
    """What a score depends on besides the data. Defaults are in the configuration.

    Attributes:
        method: "mlp", the paper's, or "ridge", closed form for sweeps.
        precision: "fp32", or "bf16" for the MLP's products.
        device: torch device, such as "cpu"; never detected.
        max_positives: most positives of a term; the lowest by hash are taken.
        min_positives: fewest, and fewest negatives, >= 2.
        splits: held-out splits, folds, repeats and mini-batches.
        hidden: ReLU units.
        epochs: passes over the training rows of a plain split, at most.
        fold_epochs: passes over those of a fold.
        patience: epochs without a better validation loss after which a probe stops; 0 never.
        min_improvement: by how much a loss must be lower to count as better.
        learning_rate: of Adam, for a plain split.
        fold_learning_rate: of Adam, for a fold.
        epsilon: of Adam.
        weight_decay: weight penalty of the MLP.
        ridge_alpha: penalty of the ridge probe.
        confidence: of the Wilson lower bound.
        seed: of sampling, splits, order and starting weights.
        probes_per_batch: probes of float32 trained side by side; of bfloat16, which take half the
            room, twice as many. It bounds memory, to about
            probes_per_batch * 2 * max_positives * d * 4 bytes, and leaves the scores alone.
    """

    method: Literal["mlp", "ridge"]
    precision: Literal["fp32", "bf16"]
    device: str
    max_positives: int
    min_positives: int
    splits: SplitSettings
    hidden: int
    epochs: int
    fold_epochs: int
    patience: int
    min_improvement: float
    learning_rate: float
    fold_learning_rate: float
    epsilon: float
    weight_decay: float
    ridge_alpha: float
    confidence: float
    seed: int
    probes_per_batch: int

    def __post_init__(self) -> None:
        if self.method not in ("mlp", "ridge") or self.precision not in ("fp32", "bf16"):
            raise ValueError(
                f"probe settings: found method {self.method!r}, precision {self.precision!r}; "
                "expected mlp or ridge, fp32 or bf16."
            )
        if self.method == "ridge" and self.precision == "bf16":
            raise ValueError(
                "probe settings: ridge needs precision fp32, its normal equations lose their "
                "rank in bf16."
            )
        splits = self.splits
        if self.min_positives < 2 or splits.num_folds < 2 or not 0 < splits.test_share < 1:
            raise ValueError(
                f"probe settings: found min_positives {self.min_positives}, num_folds "
                f"{splits.num_folds}, test_share {splits.test_share}; expected >= 2, >= 2, in "
                "(0, 1)."
            )
        if (self.patience > 0) != (splits.validation_share > 0):
            raise ValueError(
                f"probe settings: found patience {self.patience}, validation_share "
                f"{splits.validation_share}; expected both 0 (no early stopping) or both above."
            )


def score_table(
    terms: NDArray[np.int32],
    correct: NDArray[np.int64],
    tested: NDArray[np.int64],
    repeats: NDArray[np.int64],
    used: NDArray[np.int32],
    status: NDArray[np.object_],
    settings: ProbeSettings,
) -> pa.Table:
    """Rows of ``SCORE_SCHEMA``.

    Repeats of the folds lower the noise of splits and starts, not that of a small sample: standard
    error and bound are those of one repeat's items.

    Args:
        terms: int32 (T,).
        correct: int64 (T,), test items predicted right, over all repeats.
        tested: int64 (T,), test items, over all repeats.
        repeats: int64 (T,), >= 1.
        used: int32 (T,), positives.
        status: (T,).
        settings: for seed and confidence.
    """
    missing = tested == 0
    right, items = correct / repeats, tested // repeats
    some = np.maximum(items, 1)
    columns = [
        pa.array(terms, pa.int32()),
        pa.array(right / some, pa.float64(), mask=missing),
        pa.array(used, pa.int32()),
        pa.array(items, pa.int32()),
        pa.array(standard_error(right, some), pa.float64(), mask=missing),
        pa.array(wilson_lower(right, items, settings.confidence), pa.float64(), mask=missing),
        pa.array(np.full(len(terms), settings.seed), pa.int64()),
        pa.array(status.tolist(), pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCORE_SCHEMA)

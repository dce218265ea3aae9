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
test items, half of them positives; the three scores are null unless status is ok."""


@dataclass(frozen=True)
class ProbeSettings:
    """What a score depends on besides the data. Defaults are in the configuration.

    Attributes:
        method: "mlp", the paper's, or "ridge", closed form for sweeps.
        precision: "fp32", or "bf16" for the MLP's products.
        device: torch device, such as "cpu"; never detected.
        max_positives: most positives of a term; the lowest by hash are taken.
        min_positives: fewest, and fewest negatives, >= 2.
        test_share: share held out where support is high.
        folds_below: support below which every positive is tested once, by folds.
        num_folds: folds there.
        hidden: ReLU units.
        epochs: passes over the training rows.
        learning_rate: of Adam.
        weight_decay: weight penalty of the MLP.
        ridge_alpha: penalty of the ridge probe.
        batch_size: most rows of a mini-batch.
        min_batch_size: fewest rows of a mini-batch.
        batches_per_epoch: wanted steps an epoch at low support.
        confidence: of the Wilson lower bound.
        seed: of sampling, splits, order and starting weights.
        terms_per_batch: probes trained together (a cross-validated term has several). It bounds
            memory, to about terms_per_batch * 2 * max_positives * d * 4 bytes, and leaves the
            scores alone.
    """

    method: Literal["mlp", "ridge"]
    precision: Literal["fp32", "bf16"]
    device: str
    max_positives: int
    min_positives: int
    test_share: float
    folds_below: int
    num_folds: int
    hidden: int
    epochs: int
    learning_rate: float
    weight_decay: float
    ridge_alpha: float
    batch_size: int
    min_batch_size: int
    batches_per_epoch: int
    confidence: float
    seed: int
    terms_per_batch: int

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
        if self.min_positives < 2 or self.num_folds < 2 or not 0 < self.test_share < 1:
            raise ValueError(
                f"probe settings: found min_positives {self.min_positives}, num_folds "
                f"{self.num_folds}, test_share {self.test_share}; expected >= 2, >= 2, in (0, 1)."
            )


def score_table(
    terms: NDArray[np.int32],
    correct: NDArray[np.int64],
    tested: NDArray[np.int64],
    used: NDArray[np.int32],
    status: NDArray[np.object_],
    settings: ProbeSettings,
) -> pa.Table:
    """Rows of ``SCORE_SCHEMA``.

    Args:
        terms: int32 (T,).
        correct: int64 (T,), test items predicted right.
        tested: int64 (T,), test items.
        used: int32 (T,), positives.
        status: (T,).
        settings: for seed and confidence.
    """
    missing = tested == 0
    bound = wilson_lower(correct, tested, settings.confidence)
    columns = [
        pa.array(terms, pa.int32()),
        pa.array(correct / np.maximum(tested, 1), pa.float64(), mask=missing),
        pa.array(used, pa.int32()),
        pa.array(tested, pa.int32()),
        pa.array(standard_error(correct, np.maximum(tested, 1)), pa.float64(), mask=missing),
        pa.array(bound, pa.float64(), mask=missing),
        pa.array(np.full(len(terms), settings.seed), pa.int64()),
        pa.array(status.tolist(), pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCORE_SCHEMA)

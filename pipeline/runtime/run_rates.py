"""What a stage cost where it was measured, as `rates.json` has it: the ground of `run_plan`.

The file is made from the benchmarks' record by `tests/benchmarks/rates.py`; nothing in it is
written by hand. A rate that is *stated* is no measurement: a stage's docstring computes it.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from typing import Literal

Unit = Literal["images", "terms", "once"]
"""What a stage's work grows with; ``once`` for what does not grow with the corpus."""


@dataclass(frozen=True)
class Rate:
    """Cost of one stage, or of a part of it, at one size.

    Attributes:
        stage: its name in the chain.
        unit: what its work grows with.
        rows: units it was measured or stated at.
        core_seconds: of all its processes.
        source: benchmark and commit, or the file that states it.
        part: which part of the stage this is; empty for all of it.
        basis: how core seconds were taken: ``CPU seconds`` of all processes, or ``cores x clock``.
        is_stated: True where nothing was measured.
        exponent: growth of core seconds between the two largest sizes; None for one size.
        shuffle_bytes: written to shuffle files; None where nobody looked.
        shuffle_exponent: growth of those.
        spilled_bytes: written to disk because memory was short; None where nobody looked.
        output_bytes: of the tables or shards it wrote; None where nobody looked.
        mib_a_core: resident memory of all processes by core, MiB; None where nobody looked.
        radius: bits of a search of hashes, whose tables grow with the corpus; None for others.
        note: what the rate leaves out or assumes, in words.
    """

    stage: str
    unit: Unit
    rows: float
    core_seconds: float
    source: str
    part: str = ""
    basis: str = ""
    is_stated: bool = False
    exponent: float | None = None
    shuffle_bytes: float | None = None
    shuffle_exponent: float | None = None
    spilled_bytes: float | None = None
    output_bytes: float | None = None
    mib_a_core: float | None = None
    radius: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.rows <= 0 or self.core_seconds <= 0:
            raise ValueError(
                f"{self.stage}: found {self.rows} rows in {self.core_seconds} core-seconds, "
                "expected both above 0. Make rates.json anew: python tests/benchmarks/rates.py."
            )


def load_rates() -> tuple[Rate, ...]:
    """The packaged rates."""
    text = (importlib.resources.files("pipeline.runtime") / "rates.json").read_text("utf-8")
    return tuple(Rate(**record) for record in json.loads(text)["rates"])

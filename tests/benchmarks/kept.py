"""Figures of a benchmark of hours, kept one by one, so that a killed run goes on where it was.

``BENCH_KEPT=file`` names the file; without it nothing is kept. ``BENCH_ROWS=1000000,10000000``
takes these sizes in place of the benchmark's own. A size or stage that the file has is not run
again, so delete the file for a new measurement. ``BENCH_CLOSED=1`` measures nothing more and makes
the record of what is there. Each figure has the commit that it is from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import commit, machine


class Kept:
    """Figures by name: ``kept["stage_rows"]`` is a flat dict of JSON values."""

    def __init__(self) -> None:
        name = os.environ.get("BENCH_KEPT")
        self._path = Path(name) if name else None
        is_there = self._path is not None and self._path.exists()
        self.figures: dict[str, dict[str, Any]] = (
            json.loads(self._path.read_text()) if self._path is not None and is_there else {}
        )

    def __contains__(self, name: str) -> bool:
        return name in self.figures

    def lacks(self, names: Iterable[str]) -> bool:
        """Whether one of these is to be measured."""
        is_closed = os.environ.get("BENCH_CLOSED") == "1"
        return not is_closed and any(name not in self for name in names)

    def add(self, name: str, figures: dict[str, Any]) -> None:
        """Keep what was measured, with the commit and the machine."""
        self.figures[name] = {**figures, "commit": commit(), "machine": machine()}
        if self._path is not None:
            self._path.write_text(json.dumps(self.figures, indent=1))


def sizes(own: Sequence[int]) -> tuple[int, ...]:
    """Rows to measure: those that BENCH_ROWS names, or the benchmark's own."""
    asked = os.environ.get("BENCH_ROWS")
    return tuple(int(text) for text in asked.split(",")) if asked else tuple(own)

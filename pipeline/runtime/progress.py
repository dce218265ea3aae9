"""Progress of a chain of stages: a live view with time left on a terminal, log lines elsewhere.

There is a line where a stage begins and ends, and at most one a minute in between.

Time left comes from weights: the seconds that each stage took the last time where they are known
(the caller keeps them), equal weights otherwise; the share of the weights done so far is taken for
the share of the time.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

logger = logging.getLogger(__name__)

Status = Literal["waiting", "running", "done", "current", "failed"]
_MARK: dict[Status, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "running": ("▶", "bold cyan"),
    "done": ("✓", "green"),
    "current": ("=", "blue"),
    "failed": ("✗", "bold red"),
}


_SECONDS_BETWEEN_LINES = 60


class Progress:
    """Where a chain of stages is. Use as a context manager around the chain.

    Args:
        stages: names in the order they will run.
        expected_seconds: seconds that a stage is known to take; others get the mean of these.
        stream: where to, standard error by default.
        is_live: a redrawn view; by default when the stream is a terminal.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        stages: Sequence[str],
        expected_seconds: Mapping[str, float] | None = None,
        stream: TextIO | None = None,
        is_live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = stream or sys.stderr
        self._clock = clock
        self._weights = _weights(stages, expected_seconds or {})
        self._status: dict[str, Status] = dict.fromkeys(stages, "waiting")
        self._seconds: dict[str, float] = {}
        self._notes: dict[str, str] = {}
        self._share: dict[str, float] = {}
        self._running: str | None = None
        self._started = clock()
        self._stage_started = self._started
        self._told = self._started
        self._console = Console(file=stream)
        self._is_live = self._console.is_terminal if is_live is None else is_live
        self._live: Live | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._started = self._clock()
        if self._is_live:
            self._live = Live(
                console=self._console, get_renderable=self._view, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running is not None:
            self.finish(self._running, status="failed")
        if self._live is not None:
            self._is_over = True
            self._live.stop()

    def start(self, stage: str) -> None:
        """A stage begins."""
        self._status[stage] = "running"
        self._running = stage
        self._stage_started = self._clock()
        self._tell("stage_started", stage)

    def update(self, stage: str, done: int, total: int) -> None:
        """A part of the running stage is done, for the time left.

        Args:
            stage: the running stage.
            done: parts done, e.g. buckets.
            total: parts in all; 0 when unknown.
        """
        if total > 0:
            self._share[stage] = min(1.0, done / total)
            if self._clock() - self._told >= _SECONDS_BETWEEN_LINES:
                self._tell("stage_running", stage, share=round(self._share[stage], 3))

    def finish(self, stage: str, status: Status = "done", note: str = "") -> None:
        """A stage ended.

        Args:
            stage: its name.
            status: ``done``, ``current`` (it was up to date and did not run) or ``failed``.
            note: a few words for the person who watches, e.g. rows out.
        """
        is_run = self._running == stage
        self._seconds[stage] = self._clock() - self._stage_started if is_run else 0.0
        self._status[stage] = status
        self._notes[stage] = note
        self._running = None
        fields = {"seconds": round(self._seconds[stage], 1), "note": note}
        name = {"done": "stage_done", "current": "stage_current"}.get(status, "stage_failed")
        self._tell(name, stage, **fields)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage that ran, to be given as expected_seconds the next time."""
        return {name: took for name, took in self._seconds.items() if self._status[name] == "done"}

    def seconds_left(self) -> float | None:
        """Estimate of the seconds until the last stage ends; None before anything has ended.

        Stages that were up to date count neither as work nor as time.
        """
        todo = sum(w for name, w in self._weights.items() if self._status[name] == "waiting")
        worked = sum(self._seconds[name] for name in self.seconds)
        weight = sum(self._weights[name] for name in self.seconds)
        if self._running is not None:
            share = self._share.get(self._running, 0.0)
            elapsed = self._clock() - self._stage_started
            own = self._weights[self._running]
            if share > 0:
                worked, weight = worked + elapsed, weight + share * own
                todo += (1 - share) * own
            elif weight > 0:
                todo += max(0.0, own - elapsed * weight / max(worked, 1e-9))
        if weight <= 0 or worked <= 0:
            return None
        return todo * worked / weight

    def _tell(self, name: str, stage: str, **fields: object) -> None:
        if self._is_live:
            return
        self._told = self._clock()
        position = list(self._status).index(stage) + 1
        left = self.seconds_left()
        if left is not None:
            fields["seconds_left"] = round(left)
        told = {"stage": stage, "position": f"{position}/{len(self._status)}", **fields}
        told = {key: value for key, value in told.items() if value != ""}
        logger.info(name, extra={"fields": told})

    def _shown(self) -> list[str]:
        """All stages at the end; while it runs, as many around the running one as fit."""
        names = list(self._status)
        room = max(3, self._console.height - 2)
        if self._is_over or len(names) <= room:
            return names
        now = next((i for i, s in enumerate(self._status.values()) if s == "running"), 0)
        first = min(max(0, now - room // 2), len(names) - room)
        return names[first : first + room]

    def _view(self) -> Grid:
        """The redrawn picture: one line a stage, the totals below."""
        grid = Grid.grid(padding=(0, 2))
        grid.add_column()
        grid.add_column()
        grid.add_column(justify="right")
        grid.add_column()
        for name in self._shown():
            status = self._status[name]
            mark, style = _MARK[status]
            took = self._seconds.get(name)
            if status == "running":
                took = self._clock() - self._stage_started
            note = self._notes.get(name, "")
            if status == "running" and name in self._share:
                note = f"{self._share[name]:.0%}"
            if status == "current":
                took, note = None, note or "up to date"
            grid.add_row(
                Text(mark, style), Text(name, style), "" if took is None else _short(took), note
            )
        left = self.seconds_left()
        total = f"{_short(self._clock() - self._started)} so far"
        if left is not None and any(s in ("waiting", "running") for s in self._status.values()):
            total += f", about {_short(left)} left"
        grid.add_row("", Text(total, "bold"), "", "")
        return grid


def _weights(stages: Sequence[str], expected: Mapping[str, float]) -> dict[str, float]:
    known = [expected[name] for name in stages if expected.get(name, 0) > 0]
    usual = sum(known) / len(known) if known else 1.0
    return {name: expected.get(name, 0) or usual for name in stages}


def _short(seconds: float) -> str:
    """``7 s``, ``2 min 05 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

"""What every benchmark shares: systems run one by one in fresh processes, one JSON line, a table.

A benchmark is a module ``bench_<name>.py`` with ``run(size: Size) -> Measurement``. It runs the
obvious alternatives beside ours in one run, because rates of this machine drift and ratios inside a
run do not. `python tests/benchmarks/run.py NAME` prints the line last, appends it to RESULTS.jsonl
and renders RESULTS.md from that file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

Size = Literal["full", "small"]
FOLDER = Path(__file__).resolve().parent
RESULTS, PAGE = FOLDER / "RESULTS.jsonl", FOLDER / "RESULTS.md"
DIGITS = 4
"""Significant digits of printed figures."""


@dataclass(frozen=True)
class Measurement:
    """One run of one benchmark.

    Attributes:
        size: what was measured, e.g. terms, images, dimensions.
        seconds: system -> median wall seconds.
        rate: system -> items a second.
        ratio: peer -> our rate / its rate.
        quality: named quality figures, unitless.
        peak_mib: system -> largest resident memory of its process tree.
    """

    size: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    rate: Mapping[str, float] = field(default_factory=dict)
    ratio: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    peak_mib: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """What a system returned in its own process.

    Attributes:
        value: result of the function.
        seconds: wall seconds of the function alone, without the process's start and imports that
            were done before it was called.
        peak_mib: largest resident memory of the process tree while it ran.
        worker_mib: largest resident memory of one Python process below it: of a task under Spark.
    """

    value: Any
    seconds: float
    peak_mib: float
    worker_mib: float = 0.0


def in_process(
    function: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None
) -> Ran:
    """Call ``function(*args)`` in a fresh interpreter.

    Args:
        function: of a module; what it returns must travel between processes.
        args: its arguments.
        environment: variables of the new process, e.g. thread counts that are read at import.

    Raises:
        RuntimeError: the process raised or died.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    before = {name: os.environ.get(name) for name in environment or {}}
    os.environ.update(environment or {})
    try:
        process = context.Process(target=_child, args=(send, function, args))
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    send.close()
    peak = PeakMemory(process.pid)
    with peak:
        try:
            kind, value, seconds = receive.recv()
        except EOFError:
            kind, value, seconds = "died", "no result", 0.0
        process.join()
    if kind != "done":
        raise RuntimeError(f"{function.__name__}: {kind} ({value}), exit code {process.exitcode}.")
    return Ran(value, seconds, peak.mib, peak.worker_mib)


def _child(send: Any, function: Callable[..., Any], args: Sequence[Any]) -> None:
    try:
        started = time.perf_counter()
        value = function(*args)
        send.send(("done", value, time.perf_counter() - started))
    except BaseException as error:
        send.send(("raised", repr(error), 0.0))
        raise


class PeakMemory:
    """Largest resident memory of a process and its descendants, sampled; a context manager.

    Memory that several of them share (a fork's pages) counts once, by proportional size where the
    kernel tells it. The kernel walks every page for that size, which slows down what is measured:
    it is asked for only when the plain resident size has grown past its last record.

    Args:
        pid: of the root of the tree, None for this process.
        every_seconds: between two looks.
    """

    def __init__(self, pid: int | None = None, every_seconds: float = 0.2) -> None:
        self._root = psutil.Process(pid)
        self._every, self._stop = every_seconds, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0
        self.worker_mib = 0.0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        highest = 0
        while not self._stop.is_set():
            try:
                tree = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            sizes = list(map(_resident, tree))
            workers = [size for size, p in zip(sizes[1:], tree[1:], strict=True) if _is_python(p)]
            self.worker_mib = max(self.worker_mib, max(workers, default=0) / 2**20)
            resident = sum(sizes)
            if resident > _GROWN * highest:
                highest = resident
                self.mib = max(self.mib, sum(map(_proportional, tree)) / 2**20)
            self._stop.wait(self._every)


_GROWN = 1.01
"""Growth of the resident size that calls for a look at the proportional one."""


def _is_python(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("python")
    except psutil.Error:
        return False


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError, FileNotFoundError):
        return 0


def medians(runs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median of each system's figures."""
    return {name: statistics.median(values) for name, values in runs.items()}


def line_of(name: str, measured: Measurement) -> str:
    """The JSON line of a run: keys as in SPEC Z3, plus size's own entries and the machine."""
    record = {"bench": name, **asdict(measured), "machine": machine(), "commit": commit()}
    return json.dumps(_rounded(record))


def append(line: str, results: Path = RESULTS, page: Path = PAGE) -> None:
    """Append a line to the results and render the page anew."""
    with results.open("a") as out:
        out.write(line + "\n")
    page.write_text(render([json.loads(text) for text in results.read_text().splitlines()]))


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of all results: the newest full run of each benchmark, then the history."""
    parts = [
        "# Benchmark results",
        "",
        "Rendered from RESULTS.jsonl by `make bench`; figures of one run are comparable, those of",
        "two runs are not: the machine is shared. Ratios are ours / peer, more is better.",
    ]
    newest: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record["size"].get("size") == "full" or record["bench"] not in newest:
            newest[record["bench"]] = record
    for name in sorted(newest):
        parts += ["", f"## {name}", "", *_section(newest[name])]
    parts += [
        "",
        "## All runs",
        "",
        "| bench | size | commit | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for record in records:
        cells = (
            record["bench"],
            str(record["size"].get("size", "")),
            f"`{record['commit']}`",
            _pairs(record["ratio"]),
        )
        parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _section(record: Mapping[str, Any]) -> list[str]:
    lines = [f"{_pairs(record['size'])}. {record['machine']}. Commit `{record['commit']}`.", ""]
    names = list(dict.fromkeys([*record["seconds"], *record["rate"], *record["peak_mib"]]))
    if names:
        lines += ["| system | seconds | rate (1/s) | peak MiB |", "| --- | ---: | ---: | ---: |"]
        for name in names:
            cells = [str(record[key].get(name, "")) for key in ("seconds", "rate", "peak_mib")]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for key in ("ratio", "quality"):
        if record[key]:
            lines += ["", f"{key}: {_pairs(record[key])}"]
    return lines


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def machine() -> str:
    """Processors and memory, in words."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"
    )


def commit() -> str:
    """Commit of the checkout, with ``+`` where files differ from it."""
    try:
        head = ["git", "rev-parse", "--short=12", "HEAD"]
        dirty = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":!tests/benchmarks"]
        found, changed = (
            subprocess.run(call, capture_output=True, text=True, check=True, cwd=FOLDER).stdout
            for call in (head, dirty)
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.strip() + ("+" if changed.strip() else "")


def say(text: str) -> None:
    """A line of progress, with the time since the run's start."""
    sys.stderr.write(f"[{time.perf_counter() - _STARTED:7.1f} s] {text}\n")
    sys.stderr.flush()


_STARTED = time.perf_counter()

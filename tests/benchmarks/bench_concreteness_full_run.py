"""All 218,879 terms as one resumable job, killed once with SIGKILL in the middle.

Watches the job from outside: terms finished by the files it leaves, memory of the whole process
tree (driver, JVM, workers). Takes about an hour on two cores; `small` does the same to a few
hundred terms. Set FULL_RUN_ROOT to keep the tables, or to go on with a root of an earlier run.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from benchmarks.concreteness_data import DIMENSIONS, strength_of
from benchmarks.harness import FOLDER, Measurement, PeakMemory, Size, say
from benchmarks.planted_scoring import TERMS_PER_SLICE

IS_LONG = True
"""Left out of `all`."""
SIZES: dict[Size, dict[str, int]] = {
    "full": {"terms": 218_879, "support": 1000, "buckets": 256, "look_seconds": 20},
    "small": {"terms": 600, "support": 200, "buckets": 4, "look_seconds": 1},
}
KILL_AT = 0.45
"""Share of the terms after which the job is killed."""


def run(size: Size) -> Measurement:
    """Run, kill, resume, and compare what was there before with what was done after."""
    shape = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        root = os.environ.get("FULL_RUN_ROOT", folder)
        first = _watch(root, shape, kill_at=KILL_AT)
        kept = _finished(root, shape)
        say(f"killed with {kept} terms finished; resuming")
        second = _watch(root, shape, kill_at=None)
        (file_folder,) = Path(root).glob("score_planted_terms/*/term_concreteness")
        table = pq.read_table(file_folder)
    scores, terms = table["concreteness"].to_numpy(), table["term_id"].to_numpy()
    planted = strength_of(terms)
    curve = [*first.rates, *second.rates]
    part = max(1, len(curve) // 10)
    wall = first.seconds + second.seconds
    linear, sided = terms % 3 != 2, terms % 3 == 2
    return Measurement(
        {"size": size, **shape, "dimensions": DIMENSIONS, "cores": os.cpu_count()}
        | {"killed_after_terms": kept, "resumed_with_terms": second.first_seen},
        {"whole": wall, "before_kill": first.seconds, "after_kill": second.seconds},
        {
            "whole": shape["terms"] / wall,
            "start": statistics.median(curve[:part]),
            "end": statistics.median(curve[-part:]),
        },
        {},
        {
            "terms_scored": len(np.unique(terms)),
            "spearman_planted_linear": float(spearmanr(scores[linear], planted[linear]).statistic),
            "spearman_planted_two_sided": float(spearmanr(scores[sided], planted[sided]).statistic),
        },
        {"process_tree": max(first.peak, second.peak)},
    )


class _watch:
    """One attempt: seconds, terms a second between looks, peak MiB, terms found at its start."""

    def __init__(self, root: str, shape: dict[str, int], kill_at: float | None) -> None:
        call = [sys.executable, str(FOLDER / "planted_scoring.py"), root]
        for name in ("terms", "support", "buckets"):
            call += [f"--{name}", str(shape[name])]
        started = time.monotonic()
        self.first_seen = _finished(root, shape)
        self.rates: list[float] = []
        job = subprocess.Popen(call, start_new_session=True)
        with PeakMemory(job.pid, 2.0) as memory:
            before, at = self.first_seen, started
            while job.poll() is None:
                time.sleep(shape["look_seconds"])
                done, now = _finished(root, shape), time.monotonic()
                if done > before:
                    self.rates.append((done - before) / (now - at))
                    before, at = done, now
                    say(f"{done} of {shape['terms']} terms, {self.rates[-1]:.1f} terms/s")
                if kill_at is not None and done >= kill_at * shape["terms"]:
                    os.killpg(job.pid, signal.SIGKILL)
                    job.wait()
        self.seconds, self.peak = time.monotonic() - started, memory.mib
        expected = 0 if kill_at is None else -signal.SIGKILL
        if job.returncode != expected:
            raise RuntimeError(f"planted_scoring: exit code {job.returncode}, expected {expected}.")


def _finished(root: str, shape: dict[str, int]) -> int:
    """Terms whose scores are on disk: those of finished buckets and of kept slices."""
    done = list(Path(root).glob("score_planted_terms/*/_done/*.json"))
    slices = list(Path(root).glob("score_planted_terms/*/_slices/*/*.json"))
    in_slices = len([s for s in slices if not _is_bucket_done(s)]) * TERMS_PER_SLICE
    whole = sum(_terms_of_bucket(int(d.stem), shape) for d in done)
    return min(whole + in_slices, shape["terms"])


def _is_bucket_done(kept: Path) -> bool:
    return (kept.parents[2] / "_done" / f"{kept.parent.name}.json").exists()


def _terms_of_bucket(bucket: int, shape: dict[str, int]) -> int:
    return len(range(bucket, shape["terms"], shape["buckets"]))

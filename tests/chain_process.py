"""The whole chain over a planted world, each run in a process tree of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml
from planted_run import shuffled

from pipeline.config.run import RunConfig
from pipeline.demo.planted_world import PlantedWorld
from pipeline.runtime.world_check import world_config

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES_PER_SHARD = 25
"""Small enough that a world of a few hundred images has several shards."""
WAIT_SECONDS = 20
"""How long a victim that does not exist yet is waited for."""


class Layout(NamedTuple):
    """What may not show in a release.

    Attributes:
        partitions: buckets of every table, and partitions of every shuffle.
        cores: of the run.
        is_shuffled: whether every input is several files, its rows in another order.
    """

    partitions: int
    cores: int
    is_shuffled: bool

    def __str__(self) -> str:
        order = "shuffled" if self.is_shuffled else "sorted"
        return f"{self.partitions}partitions-{self.cores}cores-{order}"


class Chain:
    """Runs of the chain over one world; the log of a root stands beside it.

    Attributes:
        folder: for roots, presets and logs.
    """

    def __init__(self, folder: Path, world: PlantedWorld, overrides: Sequence[str] = ()) -> None:
        self.folder, self._overrides = folder, overrides
        self._worlds = {False: world, True: shuffled(world, folder / "shuffled", num_files=3)}

    def config(self, root: Path, layout: Layout) -> RunConfig:
        """Configuration of a run."""
        overrides = [
            f"runtime.num_buckets={layout.partitions}",
            f"runtime.shuffle_partitions={layout.partitions}",
            f"runtime.cores={layout.cores}",
            "runtime.java_options=-XX:+UseParallelGC -XX:TieredStopAtLevel=1 "
            "-XX:ReservedCodeCacheSize=240m",
            f"assign_shards.samples_per_shard={SAMPLES_PER_SHARD}",
            *self._overrides,
        ]
        return world_config(self._worlds[layout.is_shuffled], str(root), overrides)

    def preset(self, layout: Layout) -> Path:
        """File with the configuration of a run, for any root."""
        config, path = self.config(Path("root"), layout), self.folder / f"{layout}.yaml"
        values = config.model_dump(mode="json", exclude={"root"}, exclude_none=True)
        path.write_text(yaml.safe_dump(values))
        return path

    def start(self, root: Path, layout: Layout) -> subprocess.Popen[bytes]:
        """A run, in a session of its own."""
        call = [sys.executable, str(REPOSITORY / "jobs" / "run_pipeline.py")]
        call += ["--preset", str(self.preset(layout)), "--root", str(root)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{root.name}.log").open("ab") as log:
            return subprocess.Popen(
                call,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def finish(self, root: Path, layout: Layout) -> None:
        """A run to its end."""
        assert self.start(root, layout).wait() == 0, self.log(root)

    def log(self, root: Path) -> str:
        """End of what the runs of a root said."""
        return (self.folder / f"{root.name}.log").read_text(errors="replace")[-6000:]


def strike(job: subprocess.Popen[bytes], victim: str, delay: float) -> int:
    """Kill something of a run.

    Args:
        job: the run.
        victim: the Python `driver`, the `jvm` with its executor threads, a Python `worker`, or
            `everything` at once.
        delay: seconds from now.

    Returns:
        1; 0 if the run ended before.
    """
    until = time.monotonic() + delay
    while time.monotonic() < until and job.poll() is None:
        time.sleep(0.05)
    until += WAIT_SECONDS
    while job.poll() is None and time.monotonic() < until:
        if victim == "everything":
            os.killpg(job.pid, signal.SIGKILL)
            return 1
        for process in victims(job.pid, victim):
            process.kill()
            return 1
        time.sleep(0.05)
    return 0


def victims(pid: int, kind: str) -> Iterator[psutil.Process]:
    """Processes of a kind, of a run."""
    try:
        if kind == "driver":
            yield psutil.Process(pid)
            return
        for process in psutil.Process(pid).children(recursive=True):
            command = process.cmdline()
            if kind == "jvm" and command and command[0].endswith("java"):
                yield process
            elif kind == "worker" and "pyspark.daemon" in command:
                parent = process.parent()
                if parent is not None and "pyspark.daemon" in parent.cmdline():
                    yield process
    except psutil.Error:
        return


def settle(job: subprocess.Popen[bytes]) -> int:
    """Wait for the run's end, clear away what outlived its driver; the exit code."""
    code = job.wait()
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end and _group_lives(job.pid):
        if code < 0:  # orphans of a killed driver: a rerun must not wait for them
            os.killpg(job.pid, signal.SIGKILL)
        time.sleep(0.1)
    return code


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True

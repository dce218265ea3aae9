"""SIGKILL at seeded random moments of the chain: nothing half-made shows, a rerun gives the bytes.

A root is run, killed, looked at and run again until it is done; the release must then equal that of
a run that nobody disturbed. `make test-faults` takes 50 moments, the tests one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from pipeline.demo.planted_world import generate
from pipeline.files.storage import open_storage
from pipeline.runtime.manifest import POINTER, read_current
from pipeline.runtime.world_check import release_folder, world_config

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.timeout(6 * 3600),
]

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_KILLS = int(os.environ.get("FAULT_KILLS", "1"))
SEED = int(os.environ.get("FAULT_SEED", "0"))
NUM_IMAGES = 600
VICTIMS = ("driver", "jvm", "worker", "everything")
"""The Python driver, the JVM with its executor threads, a Python worker, or all at once."""
WAIT_SECONDS = 20
"""How long a victim that does not exist yet is waited for."""


class Chain:
    """Runs of the chain over one world, each in a process tree of its own."""

    def __init__(self, folder: Path, tables: Path) -> None:
        self.folder, self._world = folder, tables
        world = generate(tables, NUM_IMAGES)
        config = world_config(world, "root", ["runtime.num_buckets=2", "runtime.cores=2"])
        values = config.model_dump(mode="json", exclude={"root"}, exclude_none=True)
        self._preset = folder / "preset.yaml"
        self._preset.write_text(yaml.safe_dump(values))

    def start(self, root: Path) -> subprocess.Popen[bytes]:
        """A run, in a session of its own."""
        call = [sys.executable, str(REPOSITORY / "jobs" / "run_pipeline.py")]
        call += ["--preset", str(self._preset), "--root", str(root)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        log = (self.folder / f"{root.name}.log").open("ab")
        return subprocess.Popen(
            call, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
        )

    def log(self, root: Path) -> str:
        """End of what the runs of a root said."""
        return (self.folder / f"{root.name}.log").read_text(errors="replace")[-6000:]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("faults"), tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(chain: Chain) -> tuple[dict[str, str], float]:
    """Hashes of the release of a run to the end, and the seconds it took."""
    root, started = chain.folder / "undisturbed", time.monotonic()
    assert chain.start(root).wait() == 0, chain.log(root)
    return release_hashes(root), time.monotonic() - started


def test_killed_runs_end_in_the_same_release(
    chain: Chain, undisturbed: tuple[dict[str, str], float]
) -> None:
    want, seconds = undisturbed
    rng = np.random.default_rng([SEED, NUM_KILLS])
    kills = roots = 0
    while kills < NUM_KILLS:
        root, roots = chain.folder / f"killed{roots}", roots + 1
        done = False
        while not done:
            job = chain.start(root)
            if kills == NUM_KILLS:
                assert job.wait() == 0, chain.log(root)
                break
            victim = VICTIMS[kills % len(VICTIMS)]
            kills += strike(job, victim, float(rng.uniform(0, 0.8 * seconds)))
            done = settle(job) == 0
            check_visible(root)
        assert release_hashes(root) == want, root


def strike(job: subprocess.Popen[bytes], victim: str, delay: float) -> int:
    """Kill something of a run after ``delay`` seconds; 0 if the run ended before."""
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
    while time.monotonic() < end and group_lives(job.pid):
        if code < 0:  # orphans of a killed driver: a rerun must not wait for them
            os.killpg(job.pid, signal.SIGKILL)
        time.sleep(0.1)
    return code


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def check_visible(root: Path) -> None:
    """Whatever a pointer names is whole: stages' tables by size, a release by hashes."""
    storage = open_storage(str(root))
    for pointer in root.glob(f"*/{POINTER}"):
        home = pointer.parent.name
        if home == "release":
            release_hashes(root)
            continue
        manifest = read_current(storage, home)
        assert manifest is not None
        for table in manifest.tables.values():
            for file in table.files:
                found = root / table.path / file.name
                assert found.stat().st_size == file.num_bytes, found


def release_hashes(root: Path) -> dict[str, str]:
    """sha256 of the manifest and of every file it names, each as the manifest says."""
    release = Path(release_folder(open_storage(str(root))).root)
    text = (release / "manifest.json").read_bytes()
    manifest = json.loads(text)
    told = {f["name"]: f["sha256"] for f in manifest["files"]}
    told |= {s["name"]: s["sha256"] for s in manifest["shards"]}
    told |= {s["index"]: s["index_sha256"] for s in manifest["shards"]}
    found = {n: hashlib.sha256((release / n).read_bytes()).hexdigest() for n in told}
    assert found == told
    return found | {"manifest.json": hashlib.sha256(text).hexdigest()}

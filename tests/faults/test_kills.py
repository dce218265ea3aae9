"""SIGKILL at seeded random moments of the chain: nothing half-made shows, a rerun gives the bytes.

A root is run, killed, looked at and run again until it is done; its release and its tables must
then equal those of a run that nobody disturbed, in another layout and over inputs in another order.
`make test-faults` takes 50 moments, the tests one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from chain_process import Chain, Layout, settle, strike
from root_hashes import release_hashes, table_hashes

from pipeline.demo.planted_world import generate
from pipeline.files.storage import open_storage
from pipeline.runtime.manifest import POINTER, read_current

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.timeout(6 * 3600),
]

NUM_KILLS = int(os.environ.get("FAULT_KILLS", "1"))
SEED = int(os.environ.get("FAULT_SEED", "0"))
NUM_IMAGES = 600
VICTIMS = ("driver", "jvm", "worker", "everything")
UNDISTURBED, KILLED = Layout(2, 2, False), Layout(7, 1, True)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    world = generate(tmp_path_factory.mktemp("world"), NUM_IMAGES)
    return Chain(tmp_path_factory.mktemp("faults"), world)


@pytest.fixture(scope="module")
def undisturbed(chain: Chain) -> tuple[dict[str, str], dict[str, str], float]:
    """Hashes of the release and of the tables of a run to the end, and the seconds it took."""
    root, started = chain.folder / "undisturbed", time.monotonic()
    chain.finish(root, UNDISTURBED)
    seconds = time.monotonic() - started
    return release_hashes(root), table_hashes(root), seconds


def test_killed_runs_end_in_the_same_release(
    chain: Chain, undisturbed: tuple[dict[str, str], dict[str, str], float]
) -> None:
    release, tables, seconds = undisturbed
    assert sum(name.endswith(".tar") for name in release) > 1
    rng = np.random.default_rng([SEED, NUM_KILLS])
    kills = roots = 0
    while kills < NUM_KILLS:
        root, roots = chain.folder / f"killed{roots}", roots + 1
        done = False
        while not done:
            if kills == NUM_KILLS:
                chain.finish(root, KILLED)
                break
            job = chain.start(root, KILLED)
            victim = VICTIMS[kills % len(VICTIMS)]
            kills += strike(job, victim, float(rng.uniform(0, 0.8 * seconds)))
            done = settle(job) == 0
            check_visible(root)
        assert release_hashes(root) == release, root
        assert table_hashes(root) == tables, root


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

"""The chain on a standalone cluster that loses a worker: the release of a local run, byte for byte.

Code comes from `app.zip`, packages from `env.tar.gz`, which has no torch: the stages that need it
are refused there, with a sentence, and run in this interpreter instead. `make test-standalone`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from chain_process import Chain, Layout
from root_hashes import differences
from submitted import QUICK_JAVA, Cluster, standalone, start

from pipeline.demo.planted_world import generate
from pipeline.runtime.catalog import open_catalog

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.cluster,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("STANDALONE" not in os.environ, reason="minutes: make test-standalone"),
]

NUM_IMAGES = int(os.environ.get("STANDALONE") or "400")
NOT_GIVEN = "image_embeddings", "term_embeddings", "term_interests", "image_interests"
"""Tables of the world that the chain makes itself here, so that every stage with a model runs."""
OVERRIDES = (
    "runtime.worker_memory=1g",
    "runtime.worker_python_memory=1g",
    # The packaged encoder tells planted pictures apart little better than chance.
    "select_visual_terms.boundary=0.5",
    "score_concreteness.min_positives=10",
)
LOCAL, ON_CLUSTER = Layout(2, 2, False), Layout(3, 3, True)
NUM_WORKERS, VICTIM, STRUCK = 3, "127.0.0.3", "find_near_duplicates"
EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"
LOST = rf"Lost executor \d+ on {VICTIM}"
FIRST_WITH_TORCH, LAST_WITH_TORCH = "embed_terms", "score_concreteness"
REFUSED = "make dist-env-full"
SETTINGS = {
    "spark.driver.extraJavaOptions": QUICK_JAVA,
    "spark.executor.extraJavaOptions": QUICK_JAVA,
    "spark.sql.codegen.wholeStage": "false",
}
"""On small tables most of the time goes into compiling, in eight processes of Java at once."""
SECONDS = 1500
"""The longest that one submission may take."""


@dataclass(frozen=True)
class Submitter:
    """Submissions of the chain over one root, each after the other.

    Attributes:
        cluster: where they run.
        package: the zip.
        archive: the packages.
        folder: for the job, logs and an empty folder to be in.
        options: of every run.
    """

    cluster: Cluster
    package: Path
    archive: Path
    folder: Path
    options: tuple[str, ...]

    def run(self, name: str, *options: str, is_packed: bool) -> tuple[int, str]:
        """A submission to its end: exit code and log."""
        job = self.start(name, *options, is_packed=is_packed)
        try:
            return job.wait(SECONDS), self.log(name)
        finally:
            end(job)

    def start(self, name: str, *options: str, is_packed: bool) -> subprocess.Popen[bytes]:
        """A submission that goes on."""
        return start(
            self.cluster.url,
            self.package,
            self.folder / "run_pipeline.py",
            self.folder / "empty",
            *self.options,
            *options,
            log=self.folder / f"{name}.log",
            archive=self.archive if is_packed else None,
            settings=SETTINGS,
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    world = generate(tmp_path_factory.mktemp("world"), NUM_IMAGES)
    given = {name: path for name, path in world.tables.items() if name not in NOT_GIVEN}
    return Chain(tmp_path_factory.mktemp("roots"), replace(world, tables=given), OVERRIDES)


@pytest.fixture(scope="module")
def local(chain: Chain) -> Path:
    """Root of a run in one process."""
    root = chain.folder / "local"
    chain.finish(root, LOCAL)
    found = open_catalog(str(root))
    for name in ("near_duplicate_pairs", "rejected_pairs", "dropped_images", "label_map"):
        assert found.tables[name].num_rows > 0, f"{name}: nothing to compare"
    assert found.tables["written_shards"].num_rows > 1
    return root


@pytest.fixture
def submitter(chain: Chain, tmp_path: Path, repository: Path) -> Iterator[Submitter]:
    """A cluster of three workers, and what a user sends to it."""
    dist, work = tmp_path / "dist", tmp_path / "work"
    build = [sys.executable, "jobs/build_dist.py", "app", "env", "--out", str(dist)]
    subprocess.run(build, cwd=repository, check=True)
    (work / "empty").mkdir(parents=True)
    shutil.copy(repository / "jobs" / "run_pipeline.py", work)
    options = ("--preset", str(chain.preset(ON_CLUSTER)), "--root", str(tmp_path / "root"))
    with standalone(tmp_path / "cluster", NUM_WORKERS) as cluster:
        yield Submitter(cluster, dist / "app.zip", dist / "env.tar.gz", work, options)


def test_a_cluster_that_loses_a_worker_makes_the_release_of_a_local_run(
    local: Path, submitter: Submitter, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    code, log = submitter.run("start", is_packed=True)
    assert code == 2, log[-6000:]
    assert f"event=stage_failed stage={FIRST_WITH_TORCH}" in log
    assert REFUSED in log, log[-3000:]
    code, log = submitter.run("models", "--until", LAST_WITH_TORCH, is_packed=False)
    assert code == 0, log[-6000:]

    job = submitter.start("rest", is_packed=True)
    try:
        strike(submitter, job, root)
        assert job.wait(SECONDS) == 0, submitter.log("rest")[-6000:]
    finally:
        end(job)
    assert re.search(LOST, submitter.log("rest"))
    assert list((submitter.folder / "empty").iterdir()) == []
    assert {m.commit for m in open_catalog(str(root)).stages.values()} == {"unknown"}, "not the zip"
    assert differences(root, local) == []


def end(job: subprocess.Popen[bytes]) -> None:
    """Nothing of a submission stays: spark-submit, and Python, which outlives it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)


def strike(submitter: Submitter, job: subprocess.Popen[bytes], root: Path) -> None:
    """Kill a worker and its executor while a stage needs what the executor has shuffled."""
    wait_for(lambda: f"stage_started stage={STRUCK}" in submitter.log("rest"), job)
    began = time.time()
    scratch = submitter.cluster.scratch[VICTIM]
    wait_for(lambda: num_shuffled(scratch, began) > 0, job)
    worker = psutil.Process(submitter.cluster.workers[VICTIM].pid)
    executor = executor_of(worker)
    check_packed(executor)
    check_loopback([submitter.cluster.master.pid, job.pid, *worker_pids(submitter.cluster)])
    worker.kill()
    executor.kill()
    assert not (root / STRUCK / "CURRENT.json").exists(), "too late"


def executor_of(worker: psutil.Process) -> psutil.Process:
    """A worker starts other processes as well, to delete folders."""
    for child in worker.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if EXECUTOR in child.cmdline():
                return child
    raise AssertionError("no executor")


def wait_for(condition: Callable[[], bool], job: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert job.poll() is None, "the run ended before"
        assert time.monotonic() < until
        time.sleep(0.02)


def num_shuffled(scratch: Path, began: float) -> int:
    """Files of map outputs that were written since."""
    times = []
    for path in scratch.rglob("shuffle_*.index"):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return sum(t >= began for t in times)


def worker_pids(cluster: Cluster) -> list[int]:
    return [process.pid for process in cluster.workers.values()]


def check_packed(executor: psutil.Process) -> None:
    """Its Python, where a task has started it, is that of the archive."""
    assert (Path(executor.cwd()) / "env" / "bin" / "python").exists()
    for daemon in (p for p in executor.children() if "pyspark.daemon" in p.cmdline()):
        assert "/env/lib/python" in daemon.environ()["PYTHONPATH"]


def check_loopback(pids: list[int]) -> None:
    """Nothing of the cluster listens on an address that another machine could reach."""
    found = set()
    for pid in pids:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                sockets = one.net_connections("inet")
                found |= {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
    assert found
    assert {ip.removeprefix("::ffff:").split(".")[0] for ip in found} == {"127"}

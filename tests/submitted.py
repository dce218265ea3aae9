"""spark-submit as a user would call it, with nothing of this checkout on any path."""

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

PYTHON = """\
#!/bin/sh
# Without site there are no .pth files: the project comes from --py-files or not at all.
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{packages}"
exec "{python}" -S "$@"
"""

QUICK_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
"""Options of a Java that does not live long, among several on few cores."""


def submit(
    master: str,
    package: Path,
    job: Path,
    folder: Path,
    *arguments: str,
    timeout: float = 240,
    settings: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a job file with spark-submit, in the parts that a cluster's nodes would have.

    Args:
        master: Spark master.
        package: zip for --py-files.
        job: file to run.
        folder: empty folder to be in; what Spark needs to put down goes beside it.
        arguments: of the job.
        timeout: seconds.
        settings: of Spark, by name.
    """
    command, environment = _submission(master, package, folder, settings or {})
    return subprocess.run(
        [*command, str(job), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(
    master: str,
    package: Path,
    job: Path,
    folder: Path,
    *arguments: str,
    log: Path,
    archive: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """As `submit`, without waiting.

    Args:
        master: Spark master.
        package: zip for --py-files.
        job: file to run.
        folder: empty folder to be in; what Spark needs to put down goes beside it.
        arguments: of the job.
        log: gets what the driver says.
        archive: for --archives, `env.tar.gz`: driver and executors run in it; None: in this
            interpreter.
        settings: of Spark, by name.
    """
    command, environment = _submission(master, package, folder, settings or {})
    if archive is not None:
        command += ["--archives", f"{archive}#env"]
        driver = _unpacked(archive) / "bin" / "python"
        environment |= {
            "PYSPARK_DRIVER_PYTHON": str(driver),
            "PYSPARK_PYTHON": "./env/bin/python",
        }
    with log.open("wb") as out:
        return subprocess.Popen(
            [*command, str(job), *arguments],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _submission(
    master: str, package: Path, folder: Path, settings: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Command without its job, and environment."""
    beside = folder.parent / f"{folder.name}-spark"
    home = _spark_home(beside / "home")
    python = beside / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(PYTHON.format(packages=packages, python=sys.executable))
    python.chmod(0o755)
    command = [str(home / "bin" / "spark-submit"), "--master", master]
    for name, value in {"spark.ui.enabled": "false", **settings}.items():
        command += ["--conf", f"{name}={value}"]
    command += ["--py-files", str(package)]
    return command, _environment(beside) | {"PYSPARK_PYTHON": str(python)}


def _unpacked(archive: Path) -> Path:
    """Folder of an archive's content beside it, for the driver: Spark unpacks on executors only."""
    folder = archive.parent / "unpacked"
    if not folder.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Cluster:
    """A standalone cluster on this machine, bound to loopback.

    Attributes:
        url: of its master.
        master: its process.
        workers: processes of a core each, by host.
        scratch: folders where their executors keep shuffles, by host.
    """

    url: str
    master: subprocess.Popen[bytes]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    scratch: dict[str, Path] = field(default_factory=dict)


@contextlib.contextmanager
def standalone(folder: Path, num_workers: int, seconds: float = 120) -> Iterator[Cluster]:
    """A standalone cluster of workers of a core each, every one under a name of its own.

    Args:
        folder: for logs and work.
        num_workers: each is a host, 127.0.0.1 and on.
        seconds: to wait until a process is up.
    """
    home = _spark_home(folder / "home")
    environment = _environment(folder)
    rest = "-Dspark.master.rest.enabled=false"  # a fixed port
    environment["SPARK_DAEMON_JAVA_OPTS"] = f"{rest} {QUICK_JAVA}"
    deploy = "org.apache.spark.deploy"
    with contextlib.ExitStack() as stack:

        def run(
            name: str, host: str, says: str, kind: str, *arguments: str
        ) -> tuple[subprocess.Popen[bytes], str]:
            path, local = folder / f"{name}.log", str(folder / f"{name}-local")
            call = [str(home / "bin" / "spark-class"), f"{deploy}.{kind}", "--host", host]
            call += ["--port", "0", "--webui-port", "0", *arguments]
            log = stack.enter_context(path.open("wb"))
            own = environment | {"SPARK_LOCAL_IP": host, "SPARK_LOCAL_DIRS": local}
            process = subprocess.Popen(call, env=own, stdout=log, stderr=log)
            stack.callback(_end, process)
            return process, _said(path, says, seconds)

        says = r"spark://127\.0\.0\.1:\d+"
        process, url = run("master", "127.0.0.1", says, "master.Master")
        cluster = Cluster(url, process)
        for number in range(1, num_workers + 1):
            name, host = f"worker{number}", f"127.0.0.{number}"
            sizes = ["--cores", "1", "--memory", "2g", "--work-dir", str(folder / f"work{number}")]
            says = "Successfully registered with master"
            cluster.workers[host], _ = run(name, host, says, "worker.Worker", *sizes, url)
            cluster.scratch[host] = folder / f"{name}-local"
        yield cluster


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[str]:
    """A standalone cluster of two workers of a core each, under two names of this machine.

    Spark runs no twin of a task on the host of the first try, and a local-cluster is one host.

    Args:
        folder: for logs and work.

    Yields:
        its master's URL.
    """
    with standalone(folder, 2) as cluster:
        yield cluster.url


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)


def _said(log: Path, pattern: str, seconds: float) -> str:
    """First match in a log that is being written."""
    until = time.monotonic() + seconds
    while (found := re.search(pattern, log.read_text(errors="replace"))) is None:
        assert time.monotonic() < until, f"{pattern} not in {log.read_text()[-3000:]}"
        time.sleep(0.1)
    return found.group()


def _environment(folder: Path) -> dict[str, str]:
    """What a node's shell would have."""
    from pipeline.runtime.java import find_java

    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/tmp"),
        "JAVA_HOME": str(find_java().home),
        "OMP_NUM_THREADS": "1",
        "SPARK_HOME": str(folder / "home"),
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def _spark_home(home: Path) -> Path:
    """Spark's folder by links: workers of a local-cluster unpack code into SPARK_HOME/work."""
    home.mkdir(parents=True, exist_ok=True)
    for part in Path(pyspark.__file__).parent.iterdir():
        link = home / part.name
        if part.name != "work" and not link.is_symlink():
            link.symlink_to(part)
    return home

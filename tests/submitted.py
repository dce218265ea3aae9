"""spark-submit as a user would call it, with nothing of this checkout on any path."""

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyspark

PYTHON = """\
#!/bin/sh
# Without site there are no .pth files: the project comes from --py-files or not at all.
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{packages}"
exec "{python}" -S "$@"
"""


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
    beside = folder.parent / f"{folder.name}-spark"
    home = _spark_home(beside / "home")
    python = beside / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(PYTHON.format(packages=packages, python=sys.executable))
    python.chmod(0o755)
    environment = _environment(beside) | {"PYSPARK_PYTHON": str(python)}
    given = {"spark.ui.enabled": "false", **(settings or {})}
    command = [str(home / "bin" / "spark-submit"), "--master", master]
    for name, value in given.items():
        command += ["--conf", f"{name}={value}"]
    command += ["--py-files", str(package)]
    return subprocess.run(
        [*command, str(job), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def two_hosts(folder: Path, seconds: float = 120) -> Iterator[str]:
    """A standalone cluster of two workers of a core each, under two names of this machine.

    Spark runs no twin of a task on the host of the first try, and a local-cluster is one host.

    Args:
        folder: for logs and work.
        seconds: to wait until it is up.

    Yields:
        its master's URL.
    """
    home = _spark_home(folder / "home")
    environment = _environment(folder)
    environment["SPARK_DAEMON_JAVA_OPTS"] = "-Dspark.master.rest.enabled=false"  # a fixed port
    deploy = "org.apache.spark.deploy"
    with contextlib.ExitStack() as stack:

        def start(name: str, host: str, says: str, kind: str, *arguments: str) -> str:
            path = folder / f"{name}.log"
            call = [str(home / "bin" / "spark-class"), f"{deploy}.{kind}", "--host", host]
            call += ["--port", "0", "--webui-port", "0", *arguments]
            log = stack.enter_context(path.open("wb"))
            environment["SPARK_LOCAL_IP"] = host
            process = subprocess.Popen(call, env=environment, stdout=log, stderr=log)
            stack.callback(_end, process)
            return _said(path, says, seconds)

        master = start("master", "127.0.0.1", r"spark://127\.0\.0\.1:\d+", "master.Master")
        for number in (1, 2):
            work = str(folder / f"work{number}")
            sizes = ["--cores", "1", "--memory", "2g", "--work-dir", work]
            host, says = f"127.0.0.{number}", "Successfully registered with master"
            start(f"worker{number}", host, says, "worker.Worker", *sizes, master)
        yield master


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

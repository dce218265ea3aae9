"""spark-submit as a user would call it, with nothing of this checkout on any path."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyspark

PYTHON = """\
#!/bin/sh
# Without site there are no .pth files: the project comes from --py-files or not at all.
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{packages}"
exec "{python}" -S "$@"
"""


def submit(
    master: str, package: Path, job: Path, folder: Path, *arguments: str, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a job file with spark-submit, in the parts that a cluster's nodes would have.

    Args:
        master: Spark master.
        package: zip for --py-files.
        job: file to run.
        folder: empty folder to be in; what Spark needs to put down goes beside it.
        arguments: of the job.
        timeout: seconds.
    """
    from pipeline.runtime.java import find_java

    beside = folder.parent / f"{folder.name}-spark"
    home = _spark_home(beside / "home")
    python = beside / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(PYTHON.format(packages=packages, python=sys.executable))
    python.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/tmp"),
        "JAVA_HOME": str(find_java().home),
        "OMP_NUM_THREADS": "1",
        "PYSPARK_PYTHON": str(python),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_DIRS": str(beside / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    command = [str(home / "bin" / "spark-submit"), "--master", master]
    command += ["--conf", "spark.ui.enabled=false", "--py-files", str(package)]
    return subprocess.run(
        [*command, str(job), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _spark_home(home: Path) -> Path:
    """Spark's folder by links: workers of a local-cluster unpack code into SPARK_HOME/work."""
    home.mkdir(parents=True, exist_ok=True)
    for part in Path(pyspark.__file__).parent.iterdir():
        link = home / part.name
        if part.name != "work" and not link.is_symlink():
            link.symlink_to(part)
    return home

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from submitted import submit

from pipeline.config.runtime import RuntimeParams
from pipeline.runtime.dist import build_app_zip
from pipeline.runtime.session import open_session, session_options

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_local_options_follow_the_settings(tmp_path: Path) -> None:
    settings = RuntimeParams(driver_memory="1g", shuffle_partitions=3, arrow_batch_rows=77)
    got = session_options("select", settings, "local[2]", tmp_path / "scratch")
    assert got["spark.app.name"] == "select"
    assert got["spark.driver.memory"] == "1g"
    assert got["spark.sql.shuffle.partitions"] == "3"
    assert got["spark.sql.execution.arrow.maxRecordsPerBatch"] == "77"
    assert got["spark.sql.session.timeZone"] == "UTC"
    assert got["spark.ui.enabled"] == "false"
    assert got["spark.local.dir"] == str(tmp_path / "scratch")
    assert (tmp_path / "scratch").is_dir()


def test_cluster_options_leave_the_driver_and_its_folders_alone(tmp_path: Path) -> None:
    got = session_options("x", RuntimeParams(worker_memory="5g"), "yarn", tmp_path / "scratch")
    assert got["spark.executor.memory"] == "5g"
    assert not {"spark.local.dir", "spark.driver.memory", "spark.ui.enabled"} & set(got)
    local = session_options("x", RuntimeParams(), "local-cluster[2,1,1500]")
    assert local["spark.executor.memory"] == "1500m", "executors must fit their workers"


def test_session_is_the_one_that_was_asked_for(spark: SparkSession) -> None:
    assert spark.sparkContext.master == "local[2]"
    assert spark.conf.get("spark.sql.shuffle.partitions") == "4"
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.sparkContext.uiWebUrl is None
    java = spark.sparkContext.getConf().get("spark.driver.extraJavaOptions")
    assert java is not None
    assert "-XX:+UseParallelGC" in java
    assert "log4j2.configurationFile" in java, "one option must not displace the other"


def test_a_second_opening_gives_the_same_session(spark: SparkSession) -> None:
    assert open_session("tests", RuntimeParams(cores=2, shuffle_partitions=4)) is spark


def test_workers_run_this_python_and_find_the_code(spark: SparkSession) -> None:
    def look(part: Iterator[int]) -> Iterator[tuple[str, str]]:
        from pipeline.kernels import hashing

        yield sys.executable, hashing.__file__

    from pipeline.kernels import hashing

    found = set(spark.sparkContext.parallelize(range(2), 2).mapPartitions(look).collect())
    assert found == {(sys.executable, hashing.__file__)}


def test_app_zip_is_reproducible_complete_and_without_tests(tmp_path: Path) -> None:
    first, second = (build_app_zip(tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert {"pipeline/__init__.py", "schemas/__init__.py", "jobs/build_dist.py"} <= set(names)
    assert "pipeline/runtime/log4j2.properties" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_every_data_file_of_the_packages_is_in_the_zip(tmp_path: Path, repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "pipeline", "jobs", "schemas"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    with zipfile.ZipFile(build_app_zip(tmp_path / "app.zip")) as archive:
        missing = {n for n in listed.stdout.split() if (repository / n).exists()} - set(
            archive.namelist()
        )
    assert not missing, "give their suffixes to DATA_SUFFIXES in pipeline/runtime/dist.py"


PROBE = """
from pipeline.config.runtime import RuntimeParams
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.session import open_session

sys.exit(exit_code_of(lambda: open_session("probe", RuntimeParams())))
"""


@pytest.mark.slow
@pytest.mark.spark
def test_missing_zip_is_one_sentence(tmp_path: Path, repository: Path) -> None:
    # A driver that has the code, and executors that would not.
    job = tmp_path / "probe.py"
    job.write_text(f"import sys\nsys.path.append({str(repository)!r})\n{PROBE}")
    (tmp_path / "empty").mkdir()
    done = submit("local[1]", tmp_path / "gone.zip", job, tmp_path / "empty")
    assert done.returncode == 2, done.stderr[-3000:]
    told = done.stdout + done.stderr  # spark-submit sends the driver's errors to its output
    assert "gone.zip, which does not exist: build it with `make dist`." in told
    assert "Traceback" not in told

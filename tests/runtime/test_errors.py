from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import dataset

from pipeline.config.runtime import RuntimeParams
from pipeline.runtime.errors import JavaError, UserError, check_disk
from pipeline.runtime.explain import exit_code_of, explain

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def told(error: BaseException) -> str:
    sentence = explain(error)
    assert sentence is not None
    assert "\n" not in sentence
    return sentence


def raised(action: object, *arguments: object) -> BaseException:
    assert callable(action)
    try:
        action(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    error = raised(lambda: Path("/dev/full").write_text("x"))
    assert told(error).startswith("The disk is full")
    assert "free some room" in told(error)
    assert "data/x" in told(OSError(errno.ENOSPC, "No space left on device", "data/x"))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    gone = tmp_path / "gone.parquet"
    assert f"{gone} does not exist" in told(raised(gone.read_bytes))
    assert "check its owner and mode" in told(PermissionError(errno.EACCES, "denied", "a.parquet"))
    assert "a/b" in told(raised(lambda: (_ for _ in ()).throw(OSError(errno.EIO, "I/O", "a/b"))))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 this is not one, but long enough to be read as one")
    assert "not Parquet" in told(raised(pq.read_table, path))
    table = pa.table({"a": list(range(1000))})
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-40])
    assert "not Parquet" in told(raised(pq.read_table, path))


def test_schema_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": ["x"]}), path)
    missing = raised(lambda: dataset.dataset(path).to_table(columns=["image_id"]))
    assert "lacks a column" in told(missing)
    assert "image_id" in told(missing)
    other = raised(lambda: pq.read_table(path).cast(pa.schema([("a", pa.int32())])))
    assert "does not fit its contract" in told(other)
    assert "schemas/TABLES.md" in told(other)


def test_a_cause_is_found_behind_what_wraps_it() -> None:
    def wrap() -> None:
        try:
            raise JavaError("No Java: install it.")
        except JavaError as error:
            raise RuntimeError("session") from error

    assert told(raised(wrap)) == "No Java: install it."


def test_wrong_parameter_names_the_field() -> None:
    sentence = told(raised(lambda: RuntimeParams(num_buckets=0, colour="red")))  # type: ignore[call-arg]
    assert "num_buckets" in sentence
    assert "colour" in sentence
    assert "--set" in sentence


def test_our_value_errors_are_for_the_user_and_others_are_bugs() -> None:
    ours = raised(check_disk, "/", 1 << 62)
    assert "are needed" in told(ours)
    assert explain(raised(int, "x")) is None
    assert explain(KeyError("x")) is None
    assert explain(AssertionError("x")) is None


def test_old_python(repository: Path) -> None:
    code = "import sys; sys.version_info = (3, 9, 2); import pipeline.runtime.cli"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.9.2 at ")
    assert "is too old, 3.11 or newer is needed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def user_error() -> None:
        raise UserError("Nothing fits: do this.")

    def interrupted() -> None:
        raise KeyboardInterrupt

    def bug() -> None:
        raise KeyError("x")

    assert exit_code_of(lambda: None) == 0
    assert exit_code_of(user_error) == 2
    assert capsys.readouterr().err == "error: Nothing fits: do this.\n"
    assert exit_code_of(interrupted) == 130
    with pytest.raises(KeyError):
        exit_code_of(bug)


def test_secrets_are_not_in_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    assert "very-secret" not in told(UserError("cannot open with very-secret-value"))


def test_failures_inside_spark_tasks(spark: SparkSession, tmp_path: Path) -> None:
    def full(part: object) -> list[int]:
        import errno as codes

        raise OSError(codes.ENOSPC, "No space left on device", "part-00001.parquet")

    def ours(part: object) -> list[int]:
        from pipeline.runtime.errors import check_disk as check

        check("/", 1 << 62)
        return []

    def bug(part: object) -> list[int]:
        return [1 // 0]

    def absent(part: object) -> list[int]:
        import pipeline.no_such_module

        return [len(str(pipeline.no_such_module))]

    def lacks(name: str) -> Callable[[object], list[int]]:
        def task(part: object) -> list[int]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return task

    def run(task: object) -> BaseException:
        rdd = spark.sparkContext.parallelize([0], 1)
        return raised(lambda: rdd.mapPartitions(task).collect())  # type: ignore[arg-type]

    assert told(run(full)).startswith("The disk is full (writing part-00001.parquet)")
    assert "are needed: free some room" in told(run(ours))
    assert explain(run(bug)) is None
    assert "--py-files dist/app.zip" in told(run(absent))
    assert "(made by `make dist-env`)" in told(run(lacks("faiss")))
    assert "(made by `make dist-env-full`)" in told(run(lacks("timm.models")))


def test_files_that_spark_cannot_read(spark: SparkSession, tmp_path: Path) -> None:
    gone = raised(lambda: spark.read.parquet(str(tmp_path / "gone")))
    assert "gone" in told(gone)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing PAR1")
    unread = told(raised(lambda: spark.read.schema("a int").parquet(str(broken)).collect()))
    assert unread.startswith("Spark cannot read a file (")
    assert "broken.parquet" in unread
    assert "calling" not in unread
    damaged = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"a": list(range(10_000))}), damaged)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:50] + b"\xff" * 5000 + content[5050:])
    unread = told(raised(lambda: spark.read.parquet(str(damaged)).write.parquet(f"{tmp_path}/o")))
    assert "damaged.parquet" in unread
    frame = spark.createDataFrame([(1,)], "a int")
    assert "schemas/TABLES.md" in told(raised(lambda: frame.select("b").collect()))

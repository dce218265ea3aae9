"""README says what is: its stage table, paths, targets, options and example configuration."""

import importlib
import pkgutil
import re
import runpy
import shutil
import subprocess

import pytest
import yaml

import pipeline.stages
from pipeline.config.inputs import Inputs, Source
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.stages.chain import build_chain
from pipeline.stages.stage import BatchwiseStage, RelationalStage


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


def all_stages():
    """Every stage that a module of the chain exports, in each form it has."""
    found = {}
    for module in pkgutil.iter_modules(pipeline.stages.__path__):
        for value in vars(importlib.import_module(f"pipeline.stages.{module.name}")).values():
            if isinstance(value, RelationalStage | BatchwiseStage):
                found[id(value)] = value
    return list(found.values())


def row_of(stage):
    """The line of README for a stage; a question mark stands behind inputs that may be absent."""
    optional = {table.name for table in stage.optional}
    reads = [f"{t.name}{'?' * (t.name in optional)}" for t in stage.reads]
    return f"| `{stage.name}` | {', '.join(reads)} | {', '.join(t.name for t in stage.outputs)} |"


def listed_rows(readme):
    section = re.search(r"^## Stages$(.*?)^## ", readme, re.M | re.S).group(1)
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_stage_table_is_the_code(readme):
    expected, found = {row_of(stage) for stage in all_stages()}, listed_rows(readme)
    assert not expected - set(found), "rows that README lacks"
    assert not set(found) - expected, "rows of README that no stage has"
    assert len(found) == len(set(found))


def chains():
    """A chain for each form that inputs may have; together they hold every stage."""
    every = {
        name: Source(path=f"/{name}")
        for name in Inputs.model_fields
        if name != "annotations_nested"
    }
    from_text = ("images", "terms", "image_interest_seeds", "image_interactions")
    pictures = (*from_text, "validation_images", "blocked_images", "labelled_annotations")
    nested = {"annotations_nested": Source(path="/n"), "images": Source(path="/i")}
    for given in (every, {name: every[name] for name in pictures}, nested):
        yield [stage.name for stage in build_chain(RunConfig(inputs=Inputs(**given)))]


def test_stage_table_is_in_running_order(readme):
    names = [row.split("`")[1] for row in listed_rows(readme)]
    place = {name: names.index(name) for name in names}
    seen = set()
    for chain in chains():
        places = [place[name] for name in chain]
        assert places == sorted(places), [n for n, p in zip(chain, places, strict=True)]
        seen |= set(chain)
    assert seen == set(names)


def test_named_files_exist(readme, repository):
    named = re.findall(r"`((?:pipeline|jobs|tests|schemas|notebooks)/[\w./{},*-]+)`", readme)
    named += re.findall(r"\b(jobs/\w+\.py)\b", readme)
    named += [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert len(named) > 40
    missing = [n for n in named for name in braces(n) if not list(repository.glob(name))]
    assert not missing


def braces(name):
    """`a/{b,c}.py` as a/b.py and a/c.py."""
    found = re.search(r"\{([^}]+)\}", name)
    if not found:
        return [name.rstrip("/")]
    return [name.replace(found.group(0), choice) for choice in found.group(1).split(",")]


def test_named_targets_exist(readme, repository):
    if shutil.which("make") is None:
        pytest.skip("no make here")
    told = subprocess.run(
        ["make", "help"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    targets = set(re.findall(r"^  ([a-z_-]+) +\S", told, re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z_-]+)", readme, re.M))
    assert len(named) >= 10
    assert not named - targets
    assert not {stage.name for stage in all_stages()} - targets


def test_options_and_example_configuration_load(readme, tmp_path):
    found = re.findall(r"--set ([\w.]+=)(?:'([^']+)'|([^\s\"`]+))", readme)
    options = [name + (quoted or plain) for name, quoted, plain in found]
    assert len(options) >= 2
    load_config("demo", options)
    blocks = re.findall(r"```yaml\n(.*?)```", readme, re.S)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        config = load_config(str(path))
        assert set(yaml.safe_load(block)) <= set(RunConfig.model_fields) | {"extends"}
        build_chain(config)


def test_python_blocks_run(readme, tmp_path, monkeypatch):
    """The examples that read tables, on a small root."""
    from small_root import small_root

    small_root(tmp_path / "data" / "demo")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", readme, re.S)
    blocks = [block for block in blocks if "open_catalog" in block]
    assert blocks
    for block in blocks:
        (tmp_path / "block.py").write_text(block)
        runpy.run_path(str(tmp_path / "block.py"))

"""Command lines with wrong words and wrong inputs: one sentence, exit code 2, before any JVM."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.inputs import Inputs, Source
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.runtime import cli
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.sources import read_source
from schemas.inputs import SOURCE_IMAGES


@pytest.fixture(autouse=True)
def no_session(monkeypatch):
    """What would open a session instead leaves the names of the stages it would run."""
    planned = []
    monkeypatch.setattr(cli, "_run", lambda stages, *rest: planned.extend(stages))
    return planned


def config_of(tmp_path, **inputs):
    sources = {name: Source(path=str(path)) for name, path in inputs.items()}
    return RunConfig(root=str(tmp_path / "root"), inputs=Inputs(**sources))


@pytest.fixture
def demo(tmp_path):
    return load_config("demo", root=str(tmp_path / "root"))


def sentence(capsys, action):
    assert exit_code_of(action) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


def test_until_and_only_choose_stages(demo, no_session):
    cli.run_chain(demo, until="ingest_taxonomy")
    assert [p.stage.name for p in no_session] == [
        "ingest_terms",
        "ingest_images",
        "ingest_taxonomy",
    ]
    no_session.clear()
    cli.run_chain(demo, only=["embed_images", "ingest_images"])
    assert [p.stage.name for p in no_session] == ["ingest_images", "embed_images"]


def test_only_needs_what_others_have_published(demo, capsys):
    told = sentence(capsys, lambda: cli.run_chain(demo, only=["embed_images"]))
    assert "tables ['images'] are not there; run the stages that make them" in told


def test_unknown_stage(demo, capsys):
    told = sentence(capsys, lambda: cli.run_chain(demo, until="ingest_imags"))
    assert "Did you mean 'ingest_images'?" in told
    told = sentence(capsys, lambda: cli.run_chain(demo, only=["calibrate_threshold"]))
    assert "its inputs are not given" in told


def test_unknown_preset_and_field(capsys):
    assert "Did you mean 'demo'?" in sentence(capsys, lambda: load_config("dmo"))
    told = sentence(capsys, lambda: load_config("demo", ["inputs.images.pth=x"]))
    assert "Did you mean 'path'?" in told
    assert "integer" in sentence(capsys, lambda: load_config("demo", ["runtime.num_buckets=x"]))


def test_input_that_is_not_there(tmp_path, capsys):
    given = config_of(tmp_path, images=tmp_path / "gone.parquet", terms=tmp_path / "gone.parquet")
    told = sentence(capsys, lambda: cli.run_chain(given))
    assert f"{tmp_path}/gone.parquet does not exist" in told


@pytest.mark.parametrize("kind", ["text", "cut", "empty", "folder"])
def test_input_that_is_no_table(tmp_path, capsys, kind):
    path = tmp_path / "images.parquet"
    if kind == "folder":
        path.mkdir()
    else:
        pq.write_table(pa.table({"image_id": ["a"] * 100}), path)
        whole = path.read_bytes()
        path.write_bytes({"text": b"hello\n" * 9, "cut": whole[:-9], "empty": b""}[kind])
    given = config_of(tmp_path, images=path, terms=path)
    told = sentence(capsys, lambda: cli.run_chain(given))
    assert str(path) in told
    assert ("holds no files" if kind == "folder" else "cut short or not Parquet") in told


def test_columns_that_do_not_fit_are_all_named(spark, tmp_path, capsys):
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"uri": [1.5], "title": [["a"]], "bytes": ["x"]}), path)
    source = Source(path=str(path))
    told = sentence(
        capsys, lambda: read_source(spark, source, SOURCE_IMAGES, cli.open_storage(str(tmp_path)))
    )
    for breach in (
        "4 breaches",
        "image_id is missing, expected string",
        "uri is double, expected string",
        "title is array<string>, expected string",
        "bytes is string, expected binary",
        "Found columns ['bytes', 'title', 'uri']",
    ):
        assert breach in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "dmo"], "Did you mean 'demo'?"),
        (["--preset", "demo", "--set", "inputs.images.path=/gone.parquet"], "/gone.parquet does"),
    ],
)
def test_job_ends_with_one_sentence(tmp_path, repository, arguments, told):
    command = [sys.executable, "jobs/ingest_images.py", *arguments, "--root", str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr

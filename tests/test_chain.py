"""The chain as declared, for whatever inputs are given: planned, never run, without Java."""

import ast
import inspect
import itertools
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pipeline.config.inputs import Inputs, Source
from pipeline.config.run import RunConfig
from pipeline.files.storage import open_storage
from pipeline.runtime.planning import SOURCE, params_of, plan_chain, published_tables
from pipeline.stages.chain import build_chain
from pipeline.stages.stage import BatchwiseStage
from schemas import ALL
from schemas.inputs import SOURCES

REPOSITORY = Path(__file__).resolve().parent.parent
NEEDED = ("images", "terms", "taxonomy", "interest_seeds", "pair_models")
FORMS = ("annotations_long", "annotations_nested")
CHOICES = tuple(name for name in Inputs.model_fields if name not in (*NEEDED, *FORMS))
MODEL = "fits a model to rows, none of which comes out again"
MAKES_NEW = {
    "calibrate_threshold": "judged annotations become thresholds",
    "certify_validation": "images become one line a tier",
    "choose_pair_model": "takes one of the models",
    "count_term_documents": "texts become counts of terms",
    "embed_terms": "texts of terms and seeds, each embedded once",
    "find_near_duplicates": "images become pairs",
    "find_validation_overlaps": "images become pairs with validation images",
    "fit_annotator": MODEL,
    "group_near_duplicates": "only images with a duplicate are in a group",
    "ingest_blocked_images": "a row may name an image twice: by identifier and by digest",
    "ingest_taxonomy": "repeated names are one interest",
    "sample_concreteness": "draws a sample",
    "sweep_concreteness": "scores become counts at every boundary",
    "take_pair_model": "takes one of the models",
    "train_cells": MODEL,
    "train_image_classifier": MODEL,
    "train_term_classifier": MODEL,
}
"""Stages without a ledger: their rows out are no longer their rows in."""


def combinations():
    """Names of given inputs: none, each one, each pair, all but one, all; times the three forms."""
    some = [set(names) for n in (0, 1, 2) for names in itertools.combinations(CHOICES, n)]
    most = [set(CHOICES) - names for names in some if len(names) < 2]
    for form, names in itertools.product((None, *FORMS), some + most):
        yield frozenset(names | ({form} if form else set()))


@cache
def chain_of(given):
    files = {name: Source(path=f"/given/{name}.parquet") for name in {"images", "terms"} | given}
    config = RunConfig(root="/nowhere/run", inputs=Inputs(**files))
    return config, build_chain(config)


def every_stage():
    """Name -> every form of a stage that some combination of inputs needs."""
    found = {}
    for given in combinations():
        for stage in chain_of(given)[1]:
            forms = found.setdefault(stage.name, [])
            if all(stage is not form for form in forms):
                forms.append(stage)
    return found


STAGES = every_stage()
FORMS_OF_STAGES = [stage for name in sorted(STAGES) for stage in STAGES[name]]


def test_every_input_is_in_some_chain_and_every_chain_is_a_plan():
    asked = set()
    for given in combinations():
        config, chain = chain_of(given)
        versions = {f"{SOURCE}{name}": "v" for name in given | set(NEEDED)}
        planned = plan_chain(chain, config, open_storage(config.root), versions)
        asked |= {name for p in planned for name in p.inputs if name.startswith(SOURCE)}
    assert asked == {table.name for table in SOURCES}


@pytest.mark.parametrize("given", [frozenset(), frozenset(CHOICES)], ids=["none", "all"])
def test_no_table_is_made_twice_or_after_it_is_read(given):
    # An optional table that a later stage makes would be missing today and there tomorrow.
    made, read = set(), {}
    for stage in chain_of(given)[1]:
        read |= {table.name: stage.name for table in stage.reads}
        for table in stage.outputs:
            assert table.name not in made, f"{stage.name} makes {table.name} again"
            assert table.name not in read, f"{read[table.name]} reads {table.name} too early"
            made.add(table.name)


def test_given_inputs_change_only_what_reads_them():
    """A validation set that comes later leaves the versions of what does not read it."""
    versions = []
    for given in (frozenset(), frozenset({"validation_images"})):
        config, chain = chain_of(given)
        sources = {f"{SOURCE}{name}": "v" for name in given | set(NEEDED)}
        planned = plan_chain(chain, config, open_storage(config.root), sources)
        versions.append({p.stage.name: p.version for p in planned})
    same = {name for name in versions[0] if versions[0][name] == versions[1][name]}
    assert {"embed_images", "fingerprint_images", "find_near_duplicates", "label_images"} <= same
    assert not {"drop_near_duplicates", "write_release"} & same


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stage_has_a_job_of_its_name(name):
    job = REPOSITORY / "jobs" / f"{name}.py"
    assert job.exists(), f"stage {name} has no {job}"
    calls = [n for n in ast.walk(ast.parse(job.read_text())) if isinstance(n, ast.Call)]
    assert [ast.unparse(c.func) for c in calls] == ["run_job"]


def test_make_runs_the_job_of_every_stage():
    if shutil.which("make") is None:
        pytest.skip("no make here")
    command = ["make", "-n", *sorted(STAGES)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    silent = [name for name in STAGES if f" jobs/{name}.py --preset" not in done.stdout]
    assert not silent


@pytest.mark.parametrize("stage", FORMS_OF_STAGES, ids=lambda stage: stage.name)
def test_stage_is_declared_whole(stage):
    function = stage.kernel if isinstance(stage, BatchwiseStage) else stage.fn
    tables = (*stage.reads, *stage.outputs, *stage.optional)
    assert [t.name for t in tables if ALL.get(t.name) is not t] == [], "not in schemas.ALL"
    assert {t.name for t in stage.optional} <= {t.name for t in stage.reads}
    assert (stage.name in MAKES_NEW) == (not stage.ledger), "rows in = rows out + dropped, or why"
    assert isinstance(params_of(RunConfig(), stage), stage.params)
    module = ast.parse(inspect.getsource(inspect.getmodule(inspect.unwrap(function))))
    documented = (ast.Module, ast.FunctionDef)
    docs = [ast.get_docstring(n) or "" for n in ast.walk(module) if isinstance(n, documented)]
    assert any("Cost" in doc for doc in docs), "says no cost at 1.329 billion images"


def test_a_driver_needs_no_model_libraries():
    """`make dist-env` has none: a driver on a node plans and starts the chain without."""
    code = "import sys, jobs.run_pipeline, pipeline.runtime.lifecycle, pipeline.stages.chain;"
    code += "print(*{'torch', 'timm', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_stages_of_one_name_share_their_folder_and_first_tables():
    # Forms of ingest_annotations differ in what they set aside.
    for name, forms in STAGES.items():
        assert len({form.folder or name for form in forms}) == 1
        assert len({form.outputs[0].name for form in forms}) == 1, name


def test_nothing_is_published_before_the_first_run(tmp_path):
    assert published_tables(open_storage(str(tmp_path)), chain_of(frozenset())[1]) == {}

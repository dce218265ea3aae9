"""The parts of the ablations on planted releases: queries, runs, what is refused. No Spark."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_release import PlantedRelease, plant, recipe, tagged_folder

from pipeline.config.ablations import AblationParams, Finding
from pipeline.config.evaluate import EvaluateParams, TaggedSet
from pipeline.config.load import load_config, with_overrides
from pipeline.config.run import RunConfig
from pipeline.config.train import TrainParams
from pipeline.evaluate.features import extract
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.ablations.queries import query_sets
from pipeline.runtime.ablations.releases import ArmRelease
from pipeline.runtime.ablations.report import publish, record_of, to_lines, to_markdown
from pipeline.runtime.ablations.runs import RunResult, RunTask, run_task, run_tasks
from pipeline.train.holdout import is_held_out

SHARE = 0.3
PLANTED = PlantedRelease(num_images=300, num_labels=8)
EVALUATE = EvaluateParams.model_validate(
    {
        "few_shot": {"shots": [1, 3], "l2": [1.0], "seeds": [0]},
        "linear_probe": {"inverse_penalties": [0.1], "max_iterations": 5},
    }
)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("planted"), PLANTED)


def config_of(root, share=SHARE, **ablations) -> RunConfig:
    ablations = {"arms": [], "findings": [], **ablations}
    overrides = [f"ablations={json.dumps(ablations)}", f"train.data.holdout_share={share}"]
    return with_overrides(RunConfig(root=str(root)), overrides)


def arm(release, config) -> ArmRelease:
    return ArmRelease(config, str(release), 9, 8, 300, 310, 1.5)


def tags_table(path, names, tags, column="tag"):
    pq.write_table(pa.table({"image_id": names, column: tags}), path)
    return str(path)


def test_queries_are_the_tagged_held_out_images_with_one_tag(release, tmp_path):
    names = [f"planted-{i}" for i in range(300)]
    tags = [f"tag {i % 3}" for i in range(300)]
    held = is_held_out([sample_key(name, 0) for name in names], SHARE)
    twice = names[int(np.flatnonzero(held)[0])]
    path = tags_table(tmp_path / "tags.parquet", [*names, twice, "gone"], [*tags, "other", "x"])
    config = config_of(tmp_path / "root", tags=path)
    storage = open_storage(config.root)
    (found,) = query_sets(config, storage, {"a": arm(release, config), "b": arm(release, config)})
    table = pq.read_table(found.path).to_pydict()
    kept = {sample_key(n, 0)[:-4]: t for n, t, h in zip(names, tags, held, strict=True) if h}
    del kept[sample_key(twice, 0)[:-4]]
    assert dict(zip(table["image_id"], table["tag"], strict=True)) == kept
    assert all(data.startswith(b"\x89PNG") for data in table["bytes"])
    assert query_sets(config, storage, {"a": arm(release, config)})[0].path == found.path


def test_what_cannot_be_asked_is_refused(release, tmp_path):
    names = [f"planted-{i}" for i in range(300)]
    storage = open_storage(str(tmp_path / "root"))
    few = tags_table(tmp_path / "few.parquet", names[:30], names[:30])
    wrong = tags_table(tmp_path / "wrong.parquet", names, names, "class")
    for config, others, message in (
        (config_of(tmp_path), None, "nothing to compare on"),
        (config_of(tmp_path, tags=few), None, "expected at least 20"),
        (config_of(tmp_path, tags=wrong), None, "no column tag, found image_id, class"),
        (config_of(tmp_path, 0.0, tags=few), None, "one share above 0 in all"),
        (config_of(tmp_path, tags=few), config_of(tmp_path, 0.2), "one share above 0 in all"),
    ):
        arms = {"a": arm(release, config), "b": arm(release, others or config)}
        with pytest.raises(ValueError, match=message):
            query_sets(config, storage, arms)


@pytest.fixture(scope="module")
def tasks(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    sets = (TaggedSet(name="textures", path=str(tagged_folder(folder / "tagged", 3, 8))),)
    params = [TrainParams.model_validate(recipe(2, seed)) for seed in (0, 1)]
    out = str(folder / "out")
    return [RunTask(p, str(release), out, sets, EVALUATE) for p in (*params, params[0])]


def test_runs_side_by_side_are_those_of_one_process(tasks, monkeypatch, tmp_path):
    told = []
    found = run_tasks(tasks, 2, lambda *done: told.append(done))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert found[2].folder == found[0].folder != found[1].folder
    assert set(found[0].scores) >= {"retrieval P@1", "few_shot accuracy at 3 shots"}
    assert len(found[0].scores["retrieval P@1"]) == 24
    assert found[0].scores.keys() == found[0].untrained.keys()
    alone = run_task(replace(tasks[1], out=str(tmp_path)))
    for name, values in alone.scores.items():
        assert np.array_equal(values, found[1].scores[name])
    # What is there is neither trained nor scored again.
    monkeypatch.setattr("pipeline.runtime.ablations.runs.extract", None)
    monkeypatch.setattr("pipeline.train.trainer.Trainer.step", None)
    again = run_tasks(tasks, 1, lambda *_: None)
    assert [r.folder for r in again] == [r.folder for r in found]


def test_other_questions_are_asked_of_the_same_model(tasks, monkeypatch):
    first = run_task(tasks[0])
    asked = []
    monkeypatch.setattr("pipeline.train.trainer.Trainer.step", None)
    monkeypatch.setattr(
        "pipeline.runtime.ablations.runs.extract",
        lambda *args: asked.append(1) or extract(*args),
    )
    other = EVALUATE.model_copy(update={"retrieval_k": 3})
    found = run_task(replace(tasks[0], evaluate=other))
    assert asked == [1]
    assert found.folder == first.folder
    assert "retrieval average P@3" in found.scores


def test_a_run_that_was_stopped_says_so(tasks, monkeypatch):
    class Stopped:
        finished, updates, folder = False, 3, "somewhere"

    monkeypatch.setattr("pipeline.runtime.ablations.runs.pretrain", lambda *_: Stopped())
    with pytest.raises(ValueError, match=r"somewhere: stopped after 3 updates\. Run again"):
        run_task(tasks[0])


STOPPED = """
import sys
from pipeline.config.evaluate import EvaluateParams
from pipeline.config.train import TrainParams
from pipeline.runtime.ablations.runs import RunTask, run_tasks
from planted_release import recipe

if __name__ == "__main__":
    release, out = sys.argv[1:]
    params = [TrainParams.model_validate(recipe(100_000, seed)) for seed in range(5)]
    tasks = [RunTask(p, release, out, (), EvaluateParams()) for p in params]
    run_tasks(tasks, 2, lambda *_: None)
"""


def test_a_stopped_call_leaves_checkpoints_and_no_process(release, repository, tmp_path):
    script, out = tmp_path / "stopped.py", tmp_path / "out"
    script.write_text(STOPPED)
    paths = os.pathsep.join((str(repository), str(repository / "tests")))
    caller = psutil.Popen(
        [sys.executable, str(script), str(release), str(out)],
        env=os.environ | {"PYTHONPATH": paths},
    )
    until = time.monotonic() + 120
    while len(list(out.glob("*/log.jsonl"))) < 2:
        assert caller.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    children = caller.children(recursive=True)
    caller.terminate()
    assert caller.wait(60) != 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert len(list(out.glob("*"))) == 2  # no third run was begun
    assert len(list(out.glob("*/checkpoints/*.pt"))) == 2


def given_record(metric="m"):
    """Three queries and two seeds: arm a is right by one query more than arm b."""
    params = AblationParams.model_validate(
        {
            "arms": [{"name": n, "about": "x"} for n in ("a", "b")],
            "findings": [
                {"name": "f", "claim": "a helps", "better": ["a"], "worse": ["b"], "paper": "+1"}
            ],
            "seeds": [0, 1],
            "metric": metric,
        }
    )
    table = {"a": [[1, 1, 0], [1, 1, 0]], "b": [[1, 0, 0], [0, 1, 0]]}
    zero = np.zeros(3)
    results = {
        name: [RunResult(f"x/{name}", 7, 5, {"m": np.array(s, float)}, {"m": zero}) for s in rows]
        for name, rows in table.items()
    }
    release = arm("here", load_config("tiny"))
    return params, {"a": release, "b": release}, results


def test_the_record_has_the_figures_and_the_page_shows_them(tmp_path):
    record = record_of(*given_record())
    found = record["findings"][0]["by_metric"]["m"]
    assert found["value"] == pytest.approx(1 / 3)
    assert found["gain"] == pytest.approx(1.0)
    assert record["arms"][0]["figures"]["m"]["value"] == pytest.approx(2 / 3)
    assert record["arms"][0]["images_shown"] == 5 * 16
    storage = open_storage(str(tmp_path))
    folder = publish(storage, record)
    assert storage.read_json(f"{folder}/results.json") == record
    assert storage.read_json("ablations/CURRENT.json")["path"] == folder.rpartition("/")[2]
    page = to_markdown(record)
    assert storage.read_bytes(f"{folder}/results.md").decode() == page
    assert "| a helps | +0.3333 |" in page
    assert any("a helps" in line and "+100.0%" in line for line in to_lines(record))


def test_a_metric_that_was_not_measured(tmp_path):
    with pytest.raises(ValueError, match=r"ablations.metric = 'n', expected one of \['m'\]"):
        record_of(*given_record("n"))


def test_configurations_that_make_no_sense():
    finding = {"name": "f", "claim": "c", "better": ["gone"], "worse": ["gone"]}
    with pytest.raises(ValueError, match="1 better and 2 worse arms"):
        Finding(name="f", claim="c", better=("a",), worse=("b", "c"))
    with pytest.raises(ValueError, match="no arm gone; there are"):
        config_of(".", findings=[finding])
    with pytest.raises(ValueError, match="expected different names"):
        config_of(".", arms=[{"name": "a", "about": "x"}] * 2)


def test_every_packaged_arm_is_a_configuration():
    for preset in ("demo", "tiny"):
        config = load_config(preset)
        for one in config.ablations.arms:
            changed = with_overrides(config, (*config.ablations.base, *one.overrides))
            assert changed.resample_images.materialised is False, one.name

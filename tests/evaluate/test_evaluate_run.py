"""The whole evaluation: what it publishes, the same bytes from two processes, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_release import tagged_folder

from pipeline.config.evaluate import EvaluateParams
from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.run import Unwatched, evaluate, step_names
from pipeline.evaluate.table import Row, to_json, to_markdown

REPO = Path(__file__).resolve().parents[2]
SMALL = {
    "resamples": 20,
    "map_resamples": 10,
    "device": "cpu",
    "bands": {"head_min": 100, "tail_max": 60},
    "few_shot": {"shots": (1, 5, 500, 1000), "l2": (1.0, 16.0), "seeds": (0, 1)},
    "linear_probe": {"inverse_penalties": (0.01,), "max_iterations": 30},
    "speed": {"seconds": 0.02, "max_batch": 2},
}


class Told(Unwatched):
    """Remembers which steps ended."""

    def __init__(self):
        self.ended = []

    def finish(self, stage):
        self.ended.append(stage)


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> dict:
    folder = tagged_folder(tmp_path_factory.mktemp("tagged"), 3, 8)
    pairs = [{"name": "copies", "images": str(folder), "pairs": judged_pairs(folder)}]
    return {**SMALL, "tagged": [{"name": "textures", "path": str(folder)}], "pairs": pairs}


def judged_pairs(folder):
    """Neighbours of one texture are called near-duplicates, pictures of two textures are not."""
    names = [[f"texture_{t:02d}/{i:03d}.png" for i in range(8)] for t in range(3)]
    rows = [(a, b, True) for part in names for a, b in pairwise(part)]
    rows += [
        (a, b, False) for one, other in pairwise(names) for a, b in zip(one, other, strict=True)
    ]
    columns = ("image_id_a", "image_id_b", "is_near_duplicate")
    path = folder.parent / "pairs.parquet"
    pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), path)
    return str(path)


@pytest.fixture(scope="module")
def published(natural_run, planted, values, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate")
    params, told = EvaluateParams.model_validate(values), Told()
    folder = evaluate(params, str(natural_run.parent), str(planted), str(out), told)
    return folder, out, told


def test_results_have_every_task_with_its_baseline(published, values):
    folder, out, told = published
    assert json.loads((out / "CURRENT.json").read_text())["path"] == folder.uri.rpartition("/")[2]
    assert told.ended == step_names(EvaluateParams.model_validate(values))
    found = folder.read_json("results.json")
    by_key = {(r["task"], r["metric"], r["system"]): r for r in found["rows"]}
    assert len(by_key) == len(found["rows"])
    tasks = {row["task"] for row in found["rows"]}
    assert tasks == {
        f"{s}/{t}"
        for s in ("held_out", "textures")
        for t in ("labels", "retrieval", "few_shot", "linear_probe", "approximate_index")
    } - {"textures/labels"} | {"copies/near_duplicates"}
    recall, chance, gain = (
        by_key["copies/near_duplicates", "R@P95", system]
        for system in ("model", "random_weights", "model - random_weights")
    )
    assert gain["value"] == pytest.approx(recall["value"] - chance["value"])
    assert (recall["num"], recall["low"] <= recall["value"] <= recall["high"]) == (23, True)
    assert any("37 labelled pairs, 21 of them" in note for note in found["notes"])
    model, prior, difference = (
        by_key["held_out/labels", "excess_loss all", system]
        for system in ("model", "prior_only", "model - prior_only")
    )
    assert difference["value"] == pytest.approx(model["value"] - prior["value"])
    assert difference["high"] < 0
    assert model["low"] < model["value"] < model["high"]
    for metric in ("P@1", "average P@20"):
        assert ("textures/retrieval", metric, "model - random_weights") in by_key
    # 500 shots take all there is; 1,000 would be the same again
    shots = {m for t, m, _ in by_key if t == "held_out/few_shot"}
    assert shots == {f"accuracy at {s} shots" for s in (1, 5, 500)}
    assert found["about"]["preprocess"]["crop_pct"] == 1.0
    assert folder.read_json("speed.json")["batch"] == 2
    assert "| excess_loss all | model - prior_only |" in folder.read_bytes("results.md").decode()


def test_published_results_are_left_alone(published, natural_run, planted, values):
    folder, out, _ = published
    before = folder.read_bytes("speed.json")
    told, params = Told(), EvaluateParams.model_validate({**values, "threads": 1})
    again = evaluate(params, str(natural_run.parent), str(planted), str(out), told)
    assert (again, told.ended) == (folder, [])
    assert folder.read_bytes("speed.json") == before


def test_two_processes_publish_the_same_bytes(published, natural_run, planted, values, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps({"evaluate": values}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["jobs/evaluate.py", "--preset", str(config), "--root", str(tmp_path)]
    command += ["--model", str(natural_run.parent), "--release", str(planted)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        command, env=environment, cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "## held_out/labels" in done.stdout
    version = json.loads((tmp_path / "evaluate/CURRENT.json").read_text())["path"]
    folder = published[0]
    for name in ("results.json", "results.md"):
        assert (tmp_path / "evaluate" / version / name).read_bytes() == folder.read_bytes(name)


def test_nothing_to_evaluate_on(natural_run, planted, tmp_path):
    config = json.loads((natural_run / "export/config.json").read_text())
    config["train"]["data"]["holdout_share"] = 0.0
    export = tmp_path / "export"
    export.mkdir()
    for name in ("model.safetensors", "label_map.json"):
        (export / name).write_bytes((natural_run / "export" / name).read_bytes())
    (export / "config.json").write_text(json.dumps(config))
    given = (EvaluateParams(device="cpu"), str(export), str(planted), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        evaluate(*given, Unwatched())


def test_table_shows_what_is_not_defined():
    nan = float("nan")
    rows = [
        Row("s/t", "m", "model", Estimate(0.5, 0.25, 0.75, 1000)),
        Row("s/t", "m", "prior_only", Estimate(nan, nan, nan, 1000)),
    ]
    page = to_markdown(rows, "Title", ["a note"])
    assert "| m | model | 0.5000 | 0.2500 to 0.7500 | 1,000 |" in page
    assert "| m | prior_only | not defined |  | 1,000 |" in page
    assert page.startswith("# Title\n")
    assert "- a note" in page
    found = json.loads(to_json(rows, {"a": 1}, []))
    assert found["rows"][1]["value"] is None
    assert found["about"] == {"a": 1}

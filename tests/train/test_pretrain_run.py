"""Whole runs: resume to the bit, stop signal, limits; then two processes under torchrun."""

from __future__ import annotations

import json
import math
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.config.train import TrainParams
from pipeline.files.storage import open_storage
from pipeline.train import loop
from pipeline.train.checkpoint import list_checkpoints, load_checkpoint, load_export
from pipeline.train.loop import Outcome, pretrain
from pipeline.train.models import build_model
from pipeline.train.release import open_release
from pipeline.train.trainer import Trainer

REPO = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("gradient_worker.py")


def run(params: TrainParams, root: Path, out: Path, fresh: bool = False) -> Outcome:
    return pretrain(params, str(root), str(out), fresh)


def last_state(outcome: Outcome, root: Path) -> dict:
    folder = open_storage(f"{outcome.folder}/checkpoints")
    names = list_checkpoints(folder)
    return load_checkpoint(folder, names[-1], open_release(str(root)).label_map_sha256)


def assert_same(a: object, b: object, where: str = "") -> None:
    """Equal to the bit, through all containers."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def lines(outcome: Outcome) -> list[dict]:
    text = (Path(outcome.folder) / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(release_root, recipe, tmp_path_factory):
    """The tiny run in one go, with its final state."""
    params = TrainParams.model_validate(recipe)
    outcome = run(params, release_root, tmp_path_factory.mktemp("whole"))
    return outcome, last_state(outcome, release_root)


def test_a_run_learns_logs_and_exports(uninterrupted, release_root):
    outcome, state = uninterrupted
    assert (outcome.finished, outcome.updates) == (True, 10)
    assert (state["epoch"], state["step"], state["images_shown"]) == (2, 2, 80)
    log = lines(outcome)
    assert [x["step"] for x in log] == [1, 2, 4, 6, 8, 10]
    assert log[0]["loss"] == pytest.approx(math.log(5), rel=1e-6)
    assert log[-1]["loss"] < log[0]["loss"]
    assert 0 <= log[-1]["excess_loss"] < log[-1]["loss"]
    assert log[0]["lr"] == 0.0
    folder = open_storage(outcome.folder)
    assert list_checkpoints(folder.child("checkpoints"))[-1] == "step-000000010.pt"
    assert len(list_checkpoints(folder.child("checkpoints"))) == 3
    weights, config = load_export(folder.child("export"))
    assert_same(dict(state["model"]), weights)
    model = build_model(TrainParams.model_validate(config["train"]).model, 5, seed=9)
    model.load_state_dict(weights)
    label_map = folder.read_bytes("export/label_map.json")
    assert label_map == (release_root / "v1/label_map.json").read_bytes()
    assert json.loads((Path(outcome.folder).parent / "CURRENT.json").read_text())["version"] in (
        outcome.folder
    )


def test_finished_run_is_left_alone(uninterrupted, release_root, monkeypatch):
    outcome, _ = uninterrupted
    monkeypatch.setattr(Trainer, "step", None)
    params = TrainParams.model_validate(last_state(outcome, release_root)["config"])
    before = {p: p.stat().st_mtime_ns for p in Path(outcome.folder).rglob("*.*") if p.is_file()}
    assert run(params, release_root, Path(outcome.folder).parent) == outcome
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("stop_after", [1, 3, 5, 9])
def test_sigterm_then_resume_equals_the_uninterrupted_run(
    uninterrupted, release_root, make_params, tmp_path, monkeypatch, stop_after
):
    """Stopped inside and between epochs, on and off the checkpoint cadence."""
    plain = Trainer.step

    def step(self, *args, **kwargs):
        if self.update == stop_after - 1:
            os.kill(os.getpid(), signal.SIGTERM)
            kwargs["stop"] = True
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "step", step)
    stopped = run(make_params(), release_root, tmp_path)
    assert (stopped.finished, stopped.updates) == (False, stop_after)
    monkeypatch.undo()
    done = run(make_params(), release_root, tmp_path)
    assert done.finished
    assert_same(last_state(done, release_root), uninterrupted[1])
    steps = [x["step"] for x in lines(done)]
    assert steps == sorted(set(steps))


def test_crash_then_resume_equals_the_uninterrupted_run(
    uninterrupted, release_root, make_params, tmp_path, monkeypatch
):
    """The steps after the last checkpoint are repeated; with loader processes this time."""
    plain = Trainer.step

    def step(self, *args, **kwargs):
        if self.update == 8:
            raise OSError("machine lost")
        return plain(self, *args, **kwargs)

    params = make_params(run={"workers": 2})
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(OSError, match="machine lost"):
        run(params, release_root, tmp_path)
    monkeypatch.undo()
    done = run(params, release_root, tmp_path)
    state = last_state(done, release_root)
    expected = dict(uninterrupted[1])
    assert state.pop("config")["run"]["workers"] == 2
    expected.pop("config")
    assert_same(state, expected)
    assert [x["step"] for x in lines(done)] == [1, 2, 4, 6, 8, 10]


def test_fresh_starts_anew(release_root, make_params, tmp_path, monkeypatch):
    params = make_params(schedule={"steps": 2})
    first = run(params, release_root, tmp_path)
    started = []
    plain = Trainer.step
    monkeypatch.setattr(
        Trainer, "step", lambda self, *a, **k: started.append(self.update) or plain(self, *a, **k)
    )
    again = run(params, release_root, tmp_path, fresh=True)
    assert started == [0, 1, 2, 3]
    assert again == first


def test_other_recipe_or_release_is_another_run(release_root, make_params, make_release):
    release, other = open_release(str(release_root)), open_release(str(make_release(weights=(2,))))
    base = loop.run_version(make_params(), release)
    assert base == loop.run_version(make_params(run={"workers": 2}), release)
    assert base != loop.run_version(make_params(optimizer={"lr": 1e-3}), release)
    assert base != loop.run_version(make_params(), other)


def test_too_many_corrupt_images_stop_the_run(make_release, make_params, tmp_path):
    root = make_release(damaged=frozenset(range(16)))
    params = make_params(data={"corrupt_window": 2, "max_corrupt_rate": 0.25})
    with pytest.raises(ValueError, match="could not be read"):
        run(params, root, tmp_path / "out")


def test_few_corrupt_images_are_counted(make_release, make_params, tmp_path):
    root = make_release(damaged=frozenset({0, 17}))
    outcome = run(make_params(data={"max_corrupt_rate": 0.5}), root, tmp_path / "out")
    log = lines(outcome)
    assert sum(x["corrupt_images"] for x in log if x["step"] <= 4) == 2


def test_release_without_labels_is_refused(make_release, make_params, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.train.logs.MAX_IDLE_STEPS", 5)
    with pytest.raises(ValueError, match="without an update"):
        run(make_params(), make_release(unlabelled=frozenset(range(32))), tmp_path / "out")


# --- several processes ---------------------------------------------------------------------------


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch.append(f"--nproc-per-node={processes}")
    return subprocess.run(
        [*launch, *command], cwd=REPO, env=environment, capture_output=True, text=True, timeout=140
    )


def test_four_processes_equal_one_and_resume_to_the_bit(make_release, make_params, tmp_path):
    """Gradients and the keys behind them, with unequal label counts per process.

    Four, because the sum of two gradients does not depend on their order and that of four does.
    """
    root = make_release(damaged=frozenset({1, 8, 20}), unlabelled=frozenset({3, 4, 5}))
    params = make_params(model={"drop_path": 0.0}, run={"micro_batch": 1})
    (tmp_path / "params.json").write_text(params.model_dump_json())
    arguments = [str(tmp_path / "params.json"), str(root)]
    four = torchrun(4, str(WORKER), *arguments, str(tmp_path / "four"))
    assert four.returncode == 0, four.stderr
    runpy.run_path(str(WORKER))["main"](*arguments, str(tmp_path / "one"))
    expected = torch.load(tmp_path / "one-0.pt", weights_only=True)
    got = [torch.load(tmp_path / f"four-{rank}.pt", weights_only=True) for rank in range(4)]
    for rank in got:
        assert_same(rank["gradients"], got[0]["gradients"])
        assert_same(rank["resumed"][0], got[0]["gradients"][-1])
        assert rank["labelled"] == expected["labelled"]
    for step in range(3):
        assert [k for rank in got for k in rank["keys"][step]] == expected["keys"][step]
    for step in range(2):  # the third is behind AdamW, which magnifies rounding
        for name, value in expected["gradients"][step].items():
            mine = got[0]["gradients"][step][name]
            scale = float(value.abs().max())
            torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-5 * scale + 1e-9)


def test_job_under_torchrun_resumes_to_the_bit(release_root, recipe, tmp_path):
    """The job itself, two gloo processes: whole run, then the end again from a checkpoint."""
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump({"root": "unused", "train": recipe}))
    options = ["--preset", str(preset), "--release", str(release_root), "--root", str(tmp_path)]
    command = ["jobs/pretrain.py", *options, "--set", "train.run.tensorboard=true"]
    first = torchrun(2, *command)
    assert first.returncode == 0, first.stderr
    assert "step=10/10" in first.stderr
    (folder,) = [p for p in (tmp_path / "pretrain").iterdir() if p.is_dir()]
    outcome = Outcome(True, 10, str(folder))
    whole = last_state(outcome, release_root)
    assert whole["world_size"] == len(whole["random_states"]) == 2
    assert any((folder / "tensorboard").iterdir())
    for update in (9, 10):
        (folder / f"checkpoints/step-{update:09d}.pt").unlink()
    again = torchrun(2, *command)
    assert again.returncode == 0, again.stderr
    assert "event=resume step=6/10" in again.stderr
    assert_same(last_state(outcome, release_root), whole)
    assert lines(outcome)[0]["loss"] == pytest.approx(math.log(5), rel=1e-6)

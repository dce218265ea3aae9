"""What is off by default: average of the weights, compile, activation checkpointing, best one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from pipeline.files.storage import open_storage
from pipeline.train.batch import Position, StepBatch
from pipeline.train.checkpoint import list_checkpoints, load_checkpoint, load_export
from pipeline.train.data import ShardDataset
from pipeline.train.distributed import World
from pipeline.train.loop import Outcome, pretrain
from pipeline.train.release import open_release
from pipeline.train.trainer import Trainer

ALONE = World(0, 1, torch.device("cpu"))


def first_step(root: Path, params, step: int = 0) -> StepBatch:
    dataset = ShardDataset(open_release(str(root)), params, 0, 1, Position())
    return dataset.load(dataset.plan(0), step)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def state_of(outcome: Outcome, root: Path) -> dict:
    folder = open_storage(f"{outcome.folder}/checkpoints")
    label_map = open_release(str(root)).label_map_sha256
    return load_checkpoint(folder, list_checkpoints(folder)[-1], label_map)


def test_average_of_the_weights_by_hand(release_root, make_params):
    params = make_params(optimizer={"ema_decay": 0.9})
    trainer = Trainer(params, 5, ALONE)
    expected = {n: t.double() for n, t in weights_of(trainer).items()}
    for step in range(3):
        trainer.step(first_step(release_root, params, step), 1e-2)
        for name, value in weights_of(trainer).items():
            expected[name] = 0.9 * expected[name] + 0.1 * value.double()
    for name, value in trainer.weights().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7)
    assert not torch.equal(trainer.weights()["head.weight"], trainer.model.head.weight)


def test_a_skipped_update_moves_neither_average_nor_schedule(release_root, make_params):
    params = make_params(precision="fp16", optimizer={"ema_decay": 0.5})
    trainer = Trainer(params, 5, ALONE)
    with torch.no_grad():  # an average that an update would move
        trainer.ema.weights["head.weight"].fill_(1.0)
    trainer.scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
    trainer.scaler._scale = torch.tensor(1e38)
    counts = trainer.step(first_step(release_root, params), 0.1)
    assert not counts.updated
    assert trainer.update == 0
    assert (trainer.ema.weights["head.weight"] == 1.0).all()


@pytest.mark.parametrize("option", [{"activation_checkpointing": True}, {"compile": "aot_eager"}])
def test_options_of_a_machine_change_nothing(release_root, make_params, option):
    """Drop path draws the same numbers again when activations are computed again."""
    after = []
    for run in ({}, option):
        params = make_params(run=run, model={"drop_path": 0.3 if "compile" not in option else 0.0})
        trainer = Trainer(params, 5, ALONE)
        trainer.step(first_step(release_root, params), 1e-2)
        trainer.step(first_step(release_root, params, 1), 1e-2)
        after.append(trainer.state_dict()["optimizer"]["state"])
    assert trainer.model.grad_checkpointing == ("compile" not in option)
    assert (trainer.model._compiled_call_impl is not None) == ("compile" in option)
    for key, entry in after[0].items():
        torch.testing.assert_close(after[1][key]["exp_avg"], entry["exp_avg"], rtol=1e-4, atol=1e-7)


def test_stopped_run_with_an_average_ends_the_same_and_exports_it(
    release_root, make_params, tmp_path, monkeypatch
):
    params = make_params(optimizer={"ema_decay": 0.8}, run={"checkpoint_every": 10})
    whole = pretrain(params, str(release_root), str(tmp_path / "whole"))
    plain = Trainer.step

    def step(self, *args, **kwargs):
        if self.update == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            kwargs["stop"] = True
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "step", step)
    assert not pretrain(params, str(release_root), str(tmp_path / "stopped")).finished
    monkeypatch.undo()
    resumed = pretrain(params, str(release_root), str(tmp_path / "stopped"))
    ours, theirs = state_of(resumed, release_root), state_of(whole, release_root)
    for name, value in theirs["ema"].items():
        assert torch.equal(ours["ema"][name], value)
    assert (ours["best_update"], ours["best_excess"]) == (
        theirs["best_update"],
        theirs["best_excess"],
    )
    exported, config = load_export(open_storage(f"{whole.folder}/export"))
    assert config["weights"] == "ema"
    assert torch.equal(exported["head.weight"], theirs["ema"]["head.weight"])
    assert not torch.equal(exported["head.weight"], theirs["model"]["head.weight"])


def test_the_best_checkpoint_is_kept_and_named(release_root, make_params, tmp_path, monkeypatch):
    """Losses are planted: the second of four checkpoints is the best."""
    planted = {3: 0.5, 6: 0.2, 9: 0.9, 10: 0.4}

    def sums(self, micro):
        result = forward_loss(self, micro)
        target = planted[min(u for u in planted if u > self.update)]
        value = target * len(micro.keys)
        return result._replace(loss=result.loss * 0 + value, floor=result.floor * 0)

    forward_loss = Trainer.forward_loss
    monkeypatch.setattr(Trainer, "forward_loss", sums)
    params = make_params(run={"keep": 1})
    outcome = pretrain(params, str(release_root), str(tmp_path))
    folder = Path(outcome.folder) / "checkpoints"
    kept = sorted(path.name for path in folder.glob("step-*.pt"))
    assert kept == ["step-000000006.pt", "step-000000010.pt"]
    told = json.loads((folder / "best.json").read_text())
    assert told == {"name": "step-000000006.pt", "excess_loss": pytest.approx(0.2)}


def test_start_from_an_earlier_run_at_another_resolution(release_root, make_params, tmp_path):
    first = pretrain(make_params(), str(release_root), str(tmp_path / "first"))
    weights, _ = load_export(open_storage(f"{first.folder}/export"))
    export = f"{first.folder}/export"
    params = make_params(
        start_from=export, model={"image_size": 48}, schedule={"warmup_steps": 0, "steps": 1}
    )
    second = pretrain(params, str(release_root), str(tmp_path / "second"))
    state = state_of(second, release_root)
    assert state["model"]["pos_embed"].shape == (1, 37, 32)
    log = [json.loads(x) for x in (Path(second.folder) / "log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] != pytest.approx(1.6094, abs=1e-3)  # ln 5: the head was kept
    plain = make_params(model={"image_size": 48}, schedule={"warmup_steps": 0, "steps": 1})
    other = pretrain(plain, str(release_root), str(tmp_path / "second"))
    assert other.folder != second.folder
    assert weights["pos_embed"].shape == (1, 17, 32)

"""One step: its start value, exact averages, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.train.batch import Position, StepBatch
from pipeline.train.data import ShardDataset
from pipeline.train.distributed import World
from pipeline.train.release import open_release
from pipeline.train.trainer import Trainer, autocast_dtype

LARS = {"name": "lars", "lr": 0.1, "trust": 0.05}
ALONE = World(0, 1, torch.device("cpu"))


def first_step(root, params, step: int = 0) -> StepBatch:
    dataset = ShardDataset(open_release(str(root)), params, 0, 1, Position())
    return dataset.load(dataset.plan(0), step)


def capture(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Gradients as the optimiser sees them."""
    seen: dict[str, torch.Tensor] = {}

    def remember(*_):
        for name, p in trainer.model.named_parameters():
            seen[name] = p.grad.clone()

    trainer.optimizer.register_step_pre_hook(remember)
    return seen


def in_double(trainer: Trainer) -> None:
    """Same trainer in float64, with a head that is not zero, so that all gradients are."""
    trainer.model.double()
    trainer._mean, trainer._std = trainer._mean.double(), trainer._std.double()
    generator = torch.Generator().manual_seed(0)
    head = trainer.model.get_classifier()
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.1)


def gradients(root, params, monkeypatch) -> dict[str, torch.Tensor]:
    trainer = Trainer(params, 5, ALONE)
    in_double(trainer)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    seen = capture(trainer)
    trainer.step(first_step(root, params), 1e-3)
    monkeypatch.undo()
    return seen


def test_loss_starts_at_log_of_the_number_of_labels(release_root, make_params):
    params = make_params()
    trainer = Trainer(params, 5, ALONE)
    counts = trainer.step(first_step(release_root, params), 0.0)
    assert counts == (8, 8, 0, 0, True)
    assert float(trainer.loss_total) / 8 == pytest.approx(math.log(5), rel=1e-6)
    assert 0 < float(trainer.floor_total) / 8 < math.log(3)


@pytest.mark.parametrize("loss", ["multilabel_softmax", "sigmoid_bce", "single_label_softmax"])
@pytest.mark.parametrize("optimizer", [{"name": "adamw", "lr": 3e-3}, LARS])
def test_overfits_one_batch(release_root, make_params, loss, optimizer):
    params = make_params(
        loss=loss,
        optimizer={**optimizer, "weight_decay": 0.0},
        model={"drop_path": 0.0},
        data={"crop_min_area": 1.0, "global_batch": 4},
    )
    trainer = Trainer(params, 5, ALONE)
    batch = first_step(release_root, params)
    excess = []
    for i in range(100):
        trainer.loss_total.zero_(), trainer.floor_total.zero_()
        trainer.step(batch, params.optimizer.lr * min(1.0, i / 10))
        excess.append(float(trainer.loss_total - trainer.floor_total) / 4)
    assert excess[-1] < 0.1 * excess[0]


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_accumulation_equals_the_whole_batch(make_release, make_params, monkeypatch, micro_batch):
    """With unequal labels per micro-batch: some images damaged, some without labels."""
    root = make_release(damaged=frozenset({1, 8, 20, 21}), unlabelled=frozenset({3, 4, 5, 6, 30}))
    plain = make_params(model={"drop_path": 0.0})
    whole = gradients(root, plain, monkeypatch)
    split = plain.model_copy(
        update={"run": plain.run.model_copy(update={"micro_batch": micro_batch})}
    )
    parts = gradients(root, split, monkeypatch)
    assert len(first_step(root, split).micro) == 8 // micro_batch
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-10, atol=1e-14)


def test_denominator_counts_labelled_images_only(make_release, make_params, monkeypatch):
    """The gradient is that of the mean over labelled images, taken by autograd directly."""
    root = make_release(damaged=frozenset({1, 8, 20, 21}), unlabelled=frozenset({3, 4, 5, 6, 30}))
    params = make_params(model={"drop_path": 0.0})
    step = first_step(root, params)
    (m,) = step.micro
    labelled = m.label_offsets.diff() > 0
    assert 0 < int(labelled.sum()) < 8
    got = gradients(root, params, monkeypatch)

    trainer = Trainer(params, 5, ALONE)
    in_double(trainer)
    x = (m.images.double() - trainer._mean) / trainer._std
    log_p = trainer.model.train()(x).log_softmax(1)
    means = [
        -log_p[i, m.label_values[m.label_offsets[i] : m.label_offsets[i + 1]]].mean()
        for i in range(8)
        if labelled[i]
    ]
    torch.stack(means).mean().backward()
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-9, atol=1e-13)


def test_step_without_labels_changes_nothing(make_release, make_params):
    params = make_params()
    root = make_release(unlabelled=frozenset(range(32)))
    trainer = Trainer(params, 5, ALONE)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    counts = trainer.step(first_step(root, params), 0.1)
    assert (counts.labelled, counts.updated, trainer.update) == (0, False, 0)
    assert trainer.position == Position(0, 1)
    assert all(torch.equal(before[k], v) for k, v in trainer.model.state_dict().items())


def test_clipping(release_root, make_params):
    params = make_params(optimizer={"clip_norm": 1e-3})
    trainer = Trainer(params, 5, ALONE)
    seen = capture(trainer)
    trainer.step(first_step(release_root, params), 1e-3)
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in seen.values()))
    assert norm == pytest.approx(1e-3, rel=1e-3)
    assert float(trainer.grad_norm) > 1e-2


def test_bf16_and_channels_last_are_close_to_fp32(release_root, make_params):
    losses = []
    for precision, channels_last in (("fp32", False), ("bf16", True)):
        params = make_params(
            precision=precision, model={"channels_last": channels_last, "drop_path": 0.0}
        )
        trainer = Trainer(params, 5, ALONE)
        for step in range(4):
            trainer.step(first_step(release_root, params, step), 3e-3)
        assert trainer.model.state_dict()["norm.weight"].dtype == torch.float32
        losses.append(float(trainer.loss_total) / 32)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_overflow_skips_the_update_and_keeps_the_schedule(release_root, make_params):
    params = make_params(precision="fp16")
    trainer = Trainer(params, 5, ALONE)
    before = trainer.model.state_dict()["head.weight"].clone()
    trainer.scaler._scale = torch.tensor(1e38)
    trainer.scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
    trainer.scaler._scale.fill_(1e38)
    batch = first_step(release_root, params)
    batch.micro[0].images.fill_(255)
    counts = trainer.step(batch, 0.1)
    assert not counts.updated
    assert (trainer.update, trainer.position) == (0, Position(0, 1))
    assert torch.equal(trainer.model.state_dict()["head.weight"], before)


def test_precision_choice():
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) == torch.float32
    assert autocast_dtype("bf16", cpu) == torch.bfloat16

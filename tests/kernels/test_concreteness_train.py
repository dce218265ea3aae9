"""The probes' own training: gradients by autograd, company, early stopping, precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.kernels import concreteness_mlp as mlp
from pipeline.kernels.concreteness_mlp import initial_parameters
from pipeline.kernels.concreteness_train import MlpSettings, Shape, train_mlps

pytestmark = pytest.mark.usefixtures("one_thread")

DIM = 12


class Given:
    """A probe with rows of its own."""

    def __init__(self, number, x, mask, x_val=None):
        self.key, self._x, self._mask = (number, 0, 0), x, mask
        self._x_val = x[0, :0] if x_val is None else x_val

    def load(self, x_SRD, mask_SR, x_VD, mask_V):
        x_SRD.copy_(self._x)
        mask_SR.copy_(self._mask)
        x_VD.copy_(self._x_val)
        mask_V.fill_(1)


def given_probes(num, steps=3, rows=16, seed=2):
    """Probes whose rows, positives first, differ by an amount that grows with their number."""
    rng = np.random.default_rng(seed)
    probes = []
    for i in range(num):
        x = rng.normal(size=(steps + 1, rows, DIM)).astype(np.float32)
        x[:, : rows // 2, 0] += i % 4
        mask = torch.ones(steps, rows)
        if i == 2:
            mask[-1, 9:] = 0
            x[steps - 1, 9:] = 0
        x = torch.from_numpy(x)
        probes.append(Given(i, x[:steps], mask, x[steps]))
    return probes, Shape(steps, rows, rows, DIM)


def trained(probes, shape, settings, num_slots):
    return {probes[at].key[0]: m for at, m in train_mlps(probes, shape, settings, num_slots, "cpu")}


@pytest.mark.parametrize("patience", [0, 1])
def test_parameters_of_one_probe_are_the_same_bits_in_any_company(patience):
    """Stronger than equal accuracies; with early stopping probes also move between slots."""
    probes, shape = given_probes(9)
    settings = MlpSettings(10, 12, 1e-2, 1e-8, 1e-3, "fp32", patience, 0.0, 0)
    full = trained(probes, shape, settings, 9)
    epochs = {number: model.epochs for number, model in full.items()}
    assert sorted(full) == list(range(9))
    assert set(epochs.values()) == {12} if patience == 0 else len(set(epochs.values())) > 2
    for which, slots in (([2, 0], 2), ([6, 2, 1], 8), ([5, 4, 3, 2], 3), ([7], 4), (range(9), 2)):
        part = trained([probes[i] for i in which], shape, settings, slots)
        for number, model in part.items():
            assert torch.equal(model.parameters_K, full[number].parameters_K)
            assert model.epochs == epochs[number]
    weight = full[0].parameters_K[: 16 * DIM].view(16, DIM)
    assert torch.all(weight[10:] == 0)  # units that pad to 16 lanes stay dead


@pytest.mark.parametrize("hidden", [1, 5, 16])
def test_an_untrained_probe_says_nothing_and_its_pairs_part_in_training(hidden):
    row = initial_parameters((3, 0, 0), DIM, hidden, 0)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32))
    logits = mlp.Mlp(torch.from_numpy(row), (DIM, 16), "fp32", 0).logits(x)
    assert logits.abs().max() < 1e-6
    weight = row[: 16 * DIM].reshape(16, DIM)
    assert (np.abs(weight[:hidden]).sum(axis=1) > 0).all()
    if hidden == 16:
        assert np.array_equal(weight[:8], weight[8:])
        probes, shape = given_probes(4)
        settings = MlpSettings(16, 5, 1e-2, 1e-8, 0.0, "fp32", 0, 0.0, 0)
        trained_row = trained(probes, shape, settings, 4)[3].parameters_K[: 16 * DIM]
        trained_weight = trained_row.view(16, DIM)
        assert (trained_weight[:8] - trained_weight[8:]).abs().max() > 0.01


def test_a_large_epsilon_leaves_weights_that_nothing_speaks_for():
    """Steps follow the gradient's size: a column of tiny values hardly moves its weights."""
    probes, shape = given_probes(4)
    for probe in probes:
        probe._x[..., -1] *= 1e-3
    moved = {}
    for epsilon in (1e-8, 0.1):
        settings = MlpSettings(16, 5, 1e-2, epsilon, 0.0, "fp32", 0, 0.0, 0)
        after = trained(probes, shape, settings, 4)[3].parameters_K[: 16 * DIM].view(16, DIM)
        start = torch.from_numpy(initial_parameters((3, 0, 0), DIM, 16, 0))[: 16 * DIM]
        change = (after - start.view(16, DIM)).abs().mean(dim=0)
        moved[epsilon] = float(change[-1] / change[0])
    assert moved[1e-8] > 0.2
    assert moved[0.1] < 0.01


def test_hand_written_gradient_equals_autograd():
    probes, shape = given_probes(4, steps=1, rows=20, seed=3)
    settings = MlpSettings(16, 6, 1e-2, 1e-3, 1e-3, "fp32", 0, 0.0, 4)
    got = trained(probes, shape, settings, 4)
    for number, probe in enumerate(probes):
        row = torch.from_numpy(initial_parameters(probe.key, DIM, 16, 4))
        w = row[: 16 * DIM].view(16, DIM).clone().requires_grad_()
        b, out, c = (part.clone().requires_grad_() for part in row[16 * DIM :].split((16, 16, 16)))
        adam = torch.optim.Adam([w, b, out, c], lr=1e-2, eps=1e-3, weight_decay=1e-3)
        target = torch.tensor([1.0] * 10 + [0.0] * 10)
        for _ in range(6):
            adam.zero_grad()
            logit = torch.relu(probe._x[0] @ w.T + b) @ out + c[0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logit, target, weight=probe._mask[0], reduction="sum"
            )
            (loss / probe._mask[0].sum()).backward()
            adam.step()
        want = torch.cat([w.flatten(), b, out, c]).detach()
        torch.testing.assert_close(got[number].parameters_K, want, rtol=1e-4, atol=1e-5)
        logit = torch.relu(probe._x_val @ w.T + b) @ out + c[0]
        torch.testing.assert_close(got[number].logits(probe._x_val), logit.detach())


def test_bf16_by_rounding_is_bf16_of_the_processor(monkeypatch):
    """The slow path of old processors and the native one agree to a few units of bf16."""
    probes, shape = given_probes(4)
    settings = MlpSettings(16, 10, 1e-2, 1e-8, 0.0, "bf16", 0, 0.0, 0)
    logits = {}
    for native in (True, False):
        monkeypatch.setattr(mlp, "has_bf16_products", lambda native=native: native)
        models = trained(probes, shape, settings, 4)
        logits[native] = torch.stack([models[i].logits(probes[i]._x_val) for i in range(4)])
    exact = trained(probes, shape, replace(settings, precision="fp32"), 4)
    exact = torch.stack([exact[i].logits(probes[i]._x_val) for i in range(4)])
    assert (logits[True] - logits[False]).abs().max() < 0.1
    assert 0 < (logits[False] - exact).abs().max() < 0.1


def test_a_probe_stops_when_its_validation_loss_no_longer_falls():
    """Rows that cannot be told apart stop at once; rows that can are trained on."""
    probes, shape = given_probes(4, steps=4, rows=32, seed=5)
    settings = MlpSettings(16, 30, 1e-2, 1e-8, 0.0, "fp32", 2, 0.001, 0)
    epochs = {number: model.epochs for number, model in trained(probes, shape, settings, 4).items()}
    assert 3 <= epochs[0] < 12  # probe 0 has no signal
    assert epochs[3] > epochs[0]
    never = trained(probes, shape, replace(settings, patience=0), 4)
    assert {model.epochs for model in never.values()} == {30}

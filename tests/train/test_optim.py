"""Parameter groups, and LARS against a plain float64 reference."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.config.train import ModelParams, OptimizerParams
from pipeline.train.lars import Lars
from pipeline.train.models import build_model
from pipeline.train.optim import build_optimizer, decays, parameter_groups, set_lr

TINY = ModelParams(
    name="vit_tiny_patch16_224", image_size=32, patch_size=8, width=32, depth=1, heads=2
)
NOT_DECAYED = [
    "pos_embed",
    "patch_embed.proj.bias",
    "blocks.0.norm1.weight",
    "blocks.0.norm1.bias",
    "blocks.0.attn.qkv.bias",
    "blocks.0.attn.proj.bias",
    "blocks.0.norm2.weight",
    "blocks.0.norm2.bias",
    "blocks.0.mlp.fc1.bias",
    "blocks.0.mlp.fc2.bias",
    "norm.weight",
    "norm.bias",
    "head.bias",
]


def test_no_decay_list_is_as_frozen_and_every_parameter_is_in_one_group():
    model = build_model(TINY, 5, seed=0)
    params = OptimizerParams()
    names = [n for n, p in model.named_parameters() if not decays(n, p, params.no_decay)]
    assert names == NOT_DECAYED
    decayed, rest = parameter_groups(model, params)
    seen = [id(p) for g in (decayed, rest) for p in g["params"]]
    assert sorted(seen) == sorted(id(p) for p in model.parameters())
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)


def test_first_adamw_step_by_hand():
    """Step 1 moves by lr (sign-like g/(|g| + eps)) and decays by lr x wd x w."""
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(3.0)
    optimizer = build_optimizer(model, OptimizerParams(weight_decay=0.5))
    set_lr(optimizer, 0.1)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 4.0), torch.full((1,), -4.0)
    optimizer.step()
    assert float(model.weight.detach()) == pytest.approx(2.0 - 0.1 * 0.5 * 2.0 - 0.1, rel=1e-5)
    assert float(model.bias.detach()) == pytest.approx(3.0 + 0.1, rel=1e-5)


def test_sgd_equals_reference_over_ten_steps_with_a_drop():
    """v = m v + g + wd w; w = w - lr v, the bias without decay (BiT's upstream rule)."""
    model = torch.nn.Linear(3, 1).double()
    optimizer = build_optimizer(model, OptimizerParams(name="sgd", weight_decay=0.1))
    generator = torch.Generator().manual_seed(5)
    parts = {"weight": 0.1, "bias": 0.0}
    expected = {n: model.get_parameter(n).detach().clone() for n in parts}
    momenta = {n: torch.zeros_like(w) for n, w in expected.items()}
    for step in range(10):
        lr = 0.2 if step < 5 else 0.02
        set_lr(optimizer, lr)
        for name, decay in parts.items():
            p = model.get_parameter(name)
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            momenta[name] = 0.9 * momenta[name] + p.grad + decay * expected[name]
            expected[name] = expected[name] - lr * momenta[name]
        optimizer.step()
    for name, value in expected.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), value, rtol=1e-12, atol=0)


def reference_lars(w, grads, rates, inside, adapt, wd, momentum=0.9, trust=0.001):
    """Plain Python LARS on lists of floats."""
    v = [0.0] * len(w)
    for g, lr in zip(grads, rates, strict=True):
        norm_w, norm_g = math.hypot(*w), math.hypot(*g)
        local = 1.0
        if adapt and norm_w > 0 and norm_g > 0:
            local = trust * norm_w / (norm_g + wd * norm_w)
        u = [local * (gi + wd * wi) for gi, wi in zip(g, w, strict=True)]
        v = [momentum * vi + (lr if inside else 1.0) * ui for vi, ui in zip(v, u, strict=True)]
        w = [wi - (1.0 if inside else lr) * vi for wi, vi in zip(w, v, strict=True)]
    return w


def run_lars(start, grads, rates, inside, adapt, wd):
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    group = {"params": [w], "weight_decay": wd, "adapt": adapt}
    optimizer = Lars([group], lr_inside_momentum=inside)
    for g, lr in zip(grads, rates, strict=True):
        set_lr(optimizer, lr)
        w.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    return w.detach().tolist()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("adapt", [True, False])
def test_lars_equals_reference_over_twenty_steps_with_a_drop(inside, adapt):
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(6, generator=generator, dtype=torch.float64).tolist()
    grads = torch.randn(20, 6, generator=generator, dtype=torch.float64).tolist()
    rates = [1.44] * 10 + [0.72] * 10
    got = run_lars(start, grads, rates, inside, adapt, 1e-4)
    assert got == pytest.approx(reference_lars(start, grads, rates, inside, adapt, 1e-4), rel=1e-12)
    other = reference_lars(start, grads, rates, not inside, adapt, 1e-4)
    assert max(abs(a - b) for a, b in zip(got, other, strict=True)) > 1e-6


@pytest.mark.parametrize("start", [[0.0, 0.0], [1.0, 2.0]])
@pytest.mark.parametrize("grad", [[0.0, 0.0], [3.0, -1.0]])
def test_lars_zero_norms(start, grad):
    got = run_lars(start, [grad], [0.5], True, True, 0.1)
    assert got == pytest.approx(reference_lars(start, [grad], [0.5], True, True, 0.1), rel=1e-12)


def test_lars_leaves_one_dimensional_tensors_alone():
    groups = parameter_groups(build_model(TINY, 5, seed=0), OptimizerParams(name="lars"))
    assert [g["adapt"] for g in groups] == [True, False]

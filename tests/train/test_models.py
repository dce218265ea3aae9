"""Sizes of the paper's models, and the head."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.train import ModelParams
from pipeline.train.models import build_model, head_of


@pytest.mark.parametrize(
    ("name", "num_labels", "parameters"),
    [
        ("vit_base_patch16_224", 1000, 86_567_656),
        ("vit_base_patch32_224", 1000, 88_224_232),
        ("resnext101_32x8d", 1000, 88_791_336),
        ("vit_base_patch16_224", 18_000, 86_567_656 + 17_000 * 769),
        ("resnext101_32x8d", 18_000, 88_791_336 + 17_000 * 2049),
    ],
)
def test_parameter_counts(name, num_labels, parameters):
    with torch.device("meta"):
        model = build_model(ModelParams(name=name), num_labels, seed=0)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert head_of(model).out_features == num_labels


def test_shape_fields_and_zero_head():
    params = ModelParams(
        name="vit_tiny_patch16_224", image_size=24, patch_size=8, width=32, depth=2, heads=2
    )
    model = build_model(params, 7, seed=1)
    assert model.pos_embed.shape == (1, 10, 32)
    assert len(model.blocks) == 2
    assert (model(torch.randn(2, 3, 24, 24)) == 0).all()


def test_same_seed_same_weights():
    params = ModelParams(name="vit_tiny_patch16_224", image_size=32, width=32, depth=1, heads=2)
    first, same, other = (build_model(params, 3, seed) for seed in (0, 0, 1))
    weights = [m.state_dict()["blocks.0.mlp.fc1.weight"] for m in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_refusals():
    with pytest.raises(ValueError, match="only for vit_"):
        ModelParams(name="resnext101_32x8d", width=64)
    with pytest.raises(ValueError, match="not a timm model"):
        build_model(ModelParams(name="vit_nonsense"), 3, seed=0)

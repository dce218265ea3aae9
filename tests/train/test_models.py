"""Sizes of the papers' models, the head, and weights that come from another run."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.load import load_config
from pipeline.config.train import ModelParams
from pipeline.train.flops import forward_macs, train_flops
from pipeline.train.models import build_model, head_names, head_of, load_weights

TINY = {"name": "vit_tiny_patch16_224", "patch_size": 8, "width": 32, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
    ("recipe", "num_labels", "parameters"),
    [
        ("vit_b16", 1000, 86_567_656),
        ("vit_b32", 1000, 88_224_232),
        ("resnext101", 1000, 88_791_336),
        ("vit_b16", 18_000, 86_567_656 + 17_000 * 769),
        ("resnext101", 18_000, 88_791_336 + 17_000 * 2049),
        ("sovit_400m", 1000, 427_680_704 + 1000 * 1153),
        ("sovit_150m", 1000, 137_374_240 + 1000 * 881),
        ("bit_r50x1", 1000, 25_549_352),
        ("bit_r101x1", 1000, 44_541_480),
        ("bit_r50x3", 1000, 217_319_080),
        ("bit_r101x3", 1000, 387_934_888),
        ("bit_r152x2", 1000, 236_335_208),
        ("bit_l_r152x4", 1000, 936_533_224),
    ],
)
def test_parameter_counts(recipe, num_labels, parameters):
    """SPEC A1, G6 (428M with the pooling head), E1; the rest as timm lists them."""
    with torch.device("meta"):
        model = build_model(load_config("tiny", [], None, recipe).train.model, num_labels, seed=0)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert head_of(model).weight.shape[0] == num_labels


@pytest.mark.parametrize(
    ("recipe", "size", "macs", "published"),
    [
        ("vit_b16", 224, 17_563_828_224, 17.56e9),
        ("vit_b16", 384, 55_484_350_464, 55.5e9),
        ("vit_b32", 224, 4_409_186_304, 4.41e9),
        ("resnext101", 224, 16_414_015_488, 16.48e9),
        ("sovit_400m", 224, 110_178_100_224, 221e9 / 2),
        ("bit_r50x1", 224, 4_089_184_256, 4.1e9),
    ],
)
def test_multiply_adds(recipe, size, macs, published):
    """Ours to the unit; what is published counts activations and pooling as well."""
    params = load_config("tiny", [f"train.model.image_size={size}"], None, recipe).train.model
    assert forward_macs(params, 1000) == macs
    assert macs == pytest.approx(published, rel=5e-3)


def test_training_is_three_forward_passes():
    """Counted; less than 1 % is saved where no gradient by the image is wanted."""
    params = ModelParams(depth=4)
    with torch.device("meta"):
        model = build_model(params, 1000, seed=0)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(2, 3, 224, 224)).sum().backward()
    assert counter.get_total_flops() == pytest.approx(2 * train_flops(params, 1000), rel=1e-2)


def test_mlp_width_is_met_exactly():
    for width, mlp in ((880, 2320), (1152, 4304), (416, 1361)):
        with torch.device("meta"):
            params = ModelParams(
                name="vit_tiny_patch16_224", width=width, heads=16, depth=1, mlp_width=mlp
            )
            assert build_model(params, 2, seed=0).blocks[0].mlp.fc1.out_features == mlp


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
    with pytest.raises(ValueError, match=r"needs model\.width"):
        ModelParams(mlp_width=64)
    with pytest.raises(ValueError, match="has no batch norm"):
        build_model(ModelParams(**TINY, image_size=16, sync_batch_norm=True), 3, seed=0)
    with pytest.raises(ValueError, match="not a timm model"):
        build_model(ModelParams(name="vit_nonsense"), 3, seed=0)


def test_batch_norm_is_synchronised_on_wish():
    with torch.device("meta"):
        given = [
            build_model(ModelParams(name="resnext101_32x8d", sync_batch_norm=wish), 3, seed=0)
            for wish in (False, True)
        ]
    kinds = [{type(m) for m in g.modules() if hasattr(m, "running_mean")} for g in given]
    assert kinds == [{nn.BatchNorm2d}, {nn.SyncBatchNorm}]
    assert given[0].state_dict().keys() == given[1].state_dict().keys()


@pytest.mark.parametrize("size", [16, 24, 40])
def test_position_embedding_follows_the_resolution(size):
    """Bicubic with antialiasing on the grid; the class token and the same size stay as they are."""
    old = build_model(ModelParams(**TINY, image_size=24), 3, seed=0)
    new = build_model(ModelParams(**TINY, image_size=size), 3, seed=1)
    load_weights(new, old.state_dict(), keep_head=True)
    before, after = old.pos_embed.detach(), new.pos_embed.detach()
    side = size // 8
    assert torch.equal(after[:, 0], before[:, 0])
    grid = before[:, 1:].reshape(1, 3, 3, 32).permute(0, 3, 1, 2)
    expected = interpolate(grid, (side, side), mode="bicubic", antialias=True)
    torch.testing.assert_close(after[:, 1:], expected.flatten(2).transpose(1, 2))
    assert torch.equal(after, before) == (size == 24)
    assert torch.equal(new.blocks[0].attn.qkv.weight, old.blocks[0].attn.qkv.weight)


def test_a_head_of_other_labels_stays_behind():
    old, new = (build_model(ModelParams(**TINY, image_size=16), n, seed=n) for n in (3, 5))
    assert head_names(new) == {"head.weight", "head.bias"}
    nn.init.ones_(old.head.weight)
    load_weights(new, old.state_dict(), keep_head=False)
    assert (new.head.weight == 0).all()
    with pytest.raises(ValueError, match=r"2 do not fit: head.bias: found \(3,\), expected \(5,\)"):
        load_weights(new, old.state_dict(), keep_head=True)

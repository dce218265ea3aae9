"""BiT's ResNet-v2 against a reference of its own in float64, written from the paper's section 3.1.

Source: SPEC E1: pre-activation bottlenecks, stride in the 3 x 3, GroupNorm of 32 groups, weight
standardisation (w - mean) / sqrt(var + 1e-10) with the biased variance over (in, kh, kw).
"""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers.std_conv import StdConv2d
from torch.nn.functional import conv2d, max_pool2d, pad, relu

from pipeline.config.train import ModelParams
from pipeline.train.models import build_model

BLOCKS = (3, 4, 6, 3)
EPS = 1e-10


def standardised(w: torch.Tensor) -> torch.Tensor:
    flat = w.reshape(len(w), -1)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred / (centred.pow(2).mean(1, keepdim=True) + EPS).sqrt()).reshape(w.shape)


def group_norm(x: torch.Tensor, s: dict, name: str) -> torch.Tensor:
    n, c, h, w = x.shape
    groups = x.reshape(n, 32, -1)
    centred = groups - groups.mean(2, keepdim=True)
    scaled = centred / (centred.pow(2).mean(2, keepdim=True) + 1e-5).sqrt()
    return scaled.reshape(n, c, h, w) * s[f"{name}.weight"].view(1, -1, 1, 1) + s[
        f"{name}.bias"
    ].view(1, -1, 1, 1)


def block(x: torch.Tensor, s: dict, name: str, stride: int) -> torch.Tensor:
    def conv(y, part, step=1, margin=0):
        return conv2d(y, standardised(s[f"{name}.{part}.weight"]), stride=step, padding=margin)

    y = relu(group_norm(x, s, f"{name}.norm1"))
    project = f"{name}.downsample.conv.weight" in s
    shortcut = conv(y, "downsample.conv", stride) if project else x
    y = conv(y, "conv1")
    y = conv(relu(group_norm(y, s, f"{name}.norm2")), "conv2", stride, 1)
    return conv(relu(group_norm(y, s, f"{name}.norm3")), "conv3") + shortcut


def reference(x: torch.Tensor, s: dict) -> torch.Tensor:
    x = conv2d(x, standardised(s["stem.conv.weight"]), stride=2, padding=3)
    x = max_pool2d(pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, depth in enumerate(BLOCKS):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            x = block(x, s, f"stages.{stage}.blocks.{i}", stride)
    pooled = relu(group_norm(x, s, "norm")).mean((2, 3))
    return pooled @ s["head.fc.weight"].flatten(1).T + s["head.fc.bias"]


@pytest.fixture(scope="module")
def lively():
    """R50x1 whose norms and head are not at their start values."""
    model = build_model(ModelParams(name="resnetv2_50x1_bit", image_size=40), 7, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1 or "head" in name:
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.eval()


def test_forward_equals_the_paper(lively):
    x = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(x.double(), {n: t.double() for n, t in lively.state_dict().items()})
        torch.testing.assert_close(lively.double()(x.double()), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(lively.float()(x).double(), expected, rtol=1e-3, atol=1e-4)


def test_weights_are_timms(lively):
    """State dicts are interchangeable; only the constant beside the variance differs."""
    theirs = timm.create_model("resnetv2_50x1_bit", num_classes=7).eval()
    theirs.load_state_dict(lively.float().state_dict())
    x = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), lively(x), rtol=2e-3, atol=1e-3)
        for module in theirs.modules():
            if isinstance(module, StdConv2d):
                assert module.eps == 1e-8
                module.eps = EPS
        torch.testing.assert_close(theirs(x), lively(x), rtol=1e-5, atol=1e-5)

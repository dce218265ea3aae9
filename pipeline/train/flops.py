"""Work of a model and of devices: multiply-adds, peak rates, the share of a peak a run reaches."""

from __future__ import annotations

import re

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.train import ModelParams
from pipeline.train.models import build_model

TRAIN_OVER_FORWARD = 3
"""The backward pass costs two forward passes (SPEC B12)."""
PEAK_FLOPS = {
    "V100": 125e12,
    "A100": 312e12,
    "L40S": 362e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2.25e15,
}
"""Dense 16-bit operations a second by words of the name the driver gives; longer keys are looked
for first. Source: the vendor's data sheets, as pytorch/torchtitan torchtitan/tools/utils.py lists
them."""


def forward_macs(params: ModelParams, num_labels: int) -> int:
    """Multiply-adds of one image's forward pass, counted on the meta device.

    Matrix products, convolutions and attention count; norms and activations do not.
    """
    with torch.device("meta"):
        model = build_model(params, num_labels, seed=0)
        image = torch.empty(1, 3, params.image_size, params.image_size)
        with FlopCounterMode(display=False) as counter:
            model(image)
    return int(counter.get_total_flops()) // 2


def train_flops(params: ModelParams, num_labels: int) -> int:
    """Operations to train on one image: 3 x 2 x forward multiply-adds.

    Source: SPEC B12.
    """
    return TRAIN_OVER_FORWARD * 2 * forward_macs(params, num_labels)


def peak_flops(device_name: str) -> float | None:
    """Peak of a device, or None for one that is not in the table."""
    words = set(re.split(r"[\s-]+", device_name))
    for key in sorted(PEAK_FLOPS, key=len, reverse=True):
        if words.issuperset(key.split()):
            return PEAK_FLOPS[key]
    return None


def device_peak(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak of this process's device in mixed precision; None on CPUs, in float32, or unknown."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    return peak_flops(torch.cuda.get_device_name(device))


def utilisation(images_per_second: float, flops_per_image: int, devices: int, peak: float) -> float:
    """Model FLOPs utilisation, a share of the peak.

    Args:
        images_per_second: over all devices.
        flops_per_image: of training, as ``train_flops``.
        devices: how many.
        peak: operations a second of one.
    """
    return images_per_second * flops_per_image / (devices * peak)

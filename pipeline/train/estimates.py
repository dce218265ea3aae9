"""Arithmetic of a run on a cluster: traffic, reading, time. Pure functions of stated rates."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.config.train import ModelParams
from pipeline.train.flops import PEAK_FLOPS, utilisation

PAPER_V100_IMAGES_PER_SECOND = {
    ("vit_base_patch16_224", 224): 231.0,
    ("vit_base_patch16_224", 384): 59.0,
    ("resnext101_32x8d", 224): 265.0,
}
"""Training images/s of one V100 at the largest batch that fits, by model and image side.
Source: paper Table 6."""
NODE_GIGABITS = (100, 400, 3200)
"""Network of a machine in Gb/s: p3dn (paper A.1), and later generations of accelerator machines."""
LOADER_IMAGES_PER_CORE = 192.0
"""Images/s that one core decodes and augments. Source: 1,923 on ten workers with Pillow,
huggingface/pytorch-image-models issue 1491; `make bench BENCH=loader` measures this loader's."""
_PLANNED_SHARE = 0.4
_PLANNED_DEVICES = ("A100", "H100")


class Rate(NamedTuple):
    """Training images/s of one device, and who says so."""

    images_per_second: float
    source: str


def rates_of(params: ModelParams, flops_per_image: int, stated: tuple[float, ...]) -> list[Rate]:
    """Rates to plan with: the user's, the paper's for its own models, and shares of known peaks.

    Args:
        params: the model.
        flops_per_image: of training.
        stated: the user's images/s of one device.
    """
    rates = [Rate(rate, "as stated") for rate in stated]
    paper = PAPER_V100_IMAGES_PER_SECOND.get((params.name, params.image_size))
    if paper is not None:
        share = utilisation(paper, flops_per_image, 1, PEAK_FLOPS["V100"])
        rates.append(Rate(paper, f"V100, the paper's Table 6 (MFU {100 * share:.1f} %)"))
    for device in _PLANNED_DEVICES:
        rate = _PLANNED_SHARE * PEAK_FLOPS[device] / flops_per_image
        rates.append(Rate(rate, f"{device} if it reached {100 * _PLANNED_SHARE:.0f} % of its peak"))
    return rates


def ring_bytes(size: float, members: int) -> float:
    """Bytes that each of the members of a ring sends to sum ``size`` bytes over all of them."""
    return 2 * (members - 1) / members * size


def network_seconds(gradient_bytes: int, nodes: int, gigabits: float) -> float:
    """Time to sum gradients over machines, each of which has summed its own devices' before.

    Args:
        gradient_bytes: of one model.
        nodes: machines.
        gigabits: network of one machine in Gb/s, all of it used.
    """
    return ring_bytes(gradient_bytes, nodes) * 8 / (gigabits * 1e9)

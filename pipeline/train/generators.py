"""The random streams inside a model (drop path and the like), saved and restored."""

from __future__ import annotations

import torch
from torch import Tensor


def random_state(device: torch.device) -> Tensor:
    """State of torch's CPU generator, followed by the CUDA device's, if it is one; uint8."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    return torch.cat(parts)


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Go on where ``random_state`` was taken."""
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[size:], device)

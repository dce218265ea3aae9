"""One concreteness probe: its parameters in a row, its starting weights, its precision.

Shapes: R rows, D features, H hidden units (padded to whole vector registers), K parameters.

Units start in pairs of equal incoming and opposite outgoing weights, so that an untrained probe
says 0 everywhere: else the random function it starts from stays in it as noise, a large part of the
error of a probe with few examples (measured on photos, DESIGN).

Source: SPEC C2, C4; Glorot uniform as in scikit-learn's MLPClassifier; pairs: Chizat, Oyallon, Bach
2019, "On lazy training in differentiable programming", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.hashing import stream_seed

LANES = 16
"""Parameters of a probe are padded to whole vector registers: Adam's vector loop then treats each
parameter alike, whatever its slot."""


@dataclass(frozen=True)
class Mlp:
    """A trained probe: its parameters in one row, see `Layout`, and the epochs it took."""

    parameters_K: Tensor
    shape: tuple[int, int]
    precision: str
    epochs: int

    def logits(self, x_RD: Tensor) -> Tensor:
        """Logits of shape (R,), float32; > 0 means positive. One product a probe, never batched,
        so that the company of other probes cannot change a bit."""
        layout = Layout(*self.shape)
        row = self.parameters_K[None]
        cast = caster(self.precision, x_RD.device)
        w_DH = cast(layout.weight(row)[0]).T
        act_RH = torch.addmm(cast(layout.bias(row)[0]), cast(x_RD), w_DH).relu_()
        logit_R1 = cast(act_RH) @ cast(layout.out(row)[0])[:, None]
        return logit_R1[:, 0].float() + layout.out_bias(row)[0]


@dataclass(frozen=True)
class Layout:
    """Where the parameters of a probe stand in its row: weight (H, D), bias, out, out bias."""

    features: int
    hidden: int

    @property
    def size(self) -> int:
        """K."""
        return self.hidden * (self.features + 2) + LANES

    def weight(self, rows_BK: Tensor) -> Tensor:
        """(B, H, D), a view."""
        part = rows_BK[:, : self.hidden * self.features]
        return part.view(-1, self.hidden, self.features)

    def bias(self, rows_BK: Tensor) -> Tensor:
        """(B, H), a view."""
        at = self.hidden * self.features
        return rows_BK[:, at : at + self.hidden]

    def out(self, rows_BK: Tensor) -> Tensor:
        """(B, H) weights of the output unit, a view."""
        at = self.hidden * (self.features + 1)
        return rows_BK[:, at : at + self.hidden]

    def out_bias(self, rows_BK: Tensor) -> Tensor:
        """(B,), a view."""
        return rows_BK[:, self.hidden * (self.features + 2)]


def initial_parameters(
    key: tuple[int, ...], num_features: int, hidden: int, seed: int
) -> NDArray[np.float32]:
    """Starting row of a probe, drawn by (seed, key) alone.

    Args:
        key: of the probe, e.g. (term_id, fold).
        num_features: D.
        hidden: units; the last of an odd number has no pair and starts with outgoing weight 0;
            those that pad it to whole registers start, and stay, at zero.
        seed: of the run.

    Returns:
        float32 (K,).
    """
    padded = -(-hidden // LANES) * LANES
    layout = Layout(num_features, padded)
    row = np.zeros((1, layout.size), np.float32)
    view = torch.from_numpy(row)
    bounds = (6 / (num_features + hidden)) ** 0.5, (6 / (hidden + 1)) ** 0.5
    rng = np.random.default_rng([stream_seed(seed, "concreteness.weights"), *key])
    first = hidden - hidden // 2  # a unit and its pair stand hidden // 2 apart, or one more
    weight, bias, out = (
        part[0] for part in (layout.weight(view), layout.bias(view), layout.out(view))
    )
    weight[:first] = _uniform(rng, (first, num_features), bounds[0])
    bias[:first] = _uniform(rng, (first,), bounds[0])
    out[: hidden // 2] = _uniform(rng, (hidden // 2,), bounds[1])
    weight[first:hidden] = weight[: hidden // 2]
    bias[first:hidden] = bias[: hidden // 2]
    out[first:hidden] = -out[: hidden // 2]
    return np.asarray(row[0], np.float32)


class Cast(Protocol):
    """Turns values into what a product takes."""

    def __call__(self, values: Tensor) -> Tensor:
        """A tensor of the same shape."""
        ...


def caster(precision: str, device: torch.device) -> Cast:
    """What a tensor becomes before it enters a product.

    Where a CPU has no bfloat16 instructions (before AVX512-BF16), torch's bfloat16 products are a
    hundred times slower than float32 ones. There the values are rounded to bfloat16 and multiplied
    as float32: a product of two bfloat16 is exact in float32, and both ways add up in float32.
    """
    if precision == "fp32":
        return _same
    return _to_bf16 if takes_bf16(precision, str(device)) else _rounded


def takes_bf16(precision: str, device: str) -> bool:
    """Whether products take bfloat16, and not float32 rounded to it."""
    return precision == "bf16" and (torch.device(device).type != "cpu" or has_bf16_products())


def has_bf16_products() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and (
        torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    )


def _same(values: Tensor) -> Tensor:
    return values


def _to_bf16(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16)


def _rounded(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).float()


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> Tensor:
    return torch.from_numpy((rng.random(shape, np.float32) * 2 - 1) * np.float32(bound))

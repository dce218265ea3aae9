"""Many small binary MLPs trained at once as batched matrix products.

Shapes: B probes, S steps an epoch, R rows a step, D features, H hidden units.

One step is four products, one ReLU mask and one fused Adam over the stacked parameters; the
gradients are written by hand, because autograd's graph costs as much as the arithmetic here
(measured: 38 against 33 terms/s). Nothing mixes probes, and no shape but B depends on them.

Source: SPEC C2, C4, C5; start and loss as in scikit-learn's MLPClassifier (Glorot uniform, mean
logistic loss).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.hashing import stream_seed

_LANES = 16
"""Parameters of a probe are padded to whole vector registers: Adam's vector loop then treats each
parameter alike, whatever its position in the stack."""
_UNROLL = 64
"""Elements that torch's vector loops take at once, or a multiple of that."""


@dataclass(frozen=True)
class MlpSettings:
    """Hyper-parameters of one training run.

    Attributes:
        hidden_size: H, units of the one ReLU layer.
        epochs: passes over the training rows.
        learning_rate: of Adam.
        weight_decay: L2 penalty, weight_decay / 2 * |w|^2 is added to the loss.
        dtype: torch.float32 or torch.bfloat16 for products and activations; parameters and Adam
            stay float32.
        seed: of the starting weights and of the order of the mini-batches.
    """

    hidden_size: int
    epochs: int
    learning_rate: float
    weight_decay: float
    dtype: torch.dtype
    seed: int


@dataclass(frozen=True)
class MlpWeights:
    """Stacked parameters: w_BDH, small_BK = [bias_H | out_H | out bias | padding], float32."""

    w_BDH: Tensor
    small_BK: Tensor

    @property
    def bias_B1H(self) -> Tensor:
        """Bias of the hidden layer."""
        return self.small_BK[:, None, : self.w_BDH.shape[2]]

    @property
    def out_BH1(self) -> Tensor:
        """Weights of the output unit."""
        hidden = self.w_BDH.shape[2]
        return self.small_BK[:, hidden : 2 * hidden, None]

    @property
    def out_bias_B1(self) -> Tensor:
        """Bias of the output unit."""
        hidden = self.w_BDH.shape[2]
        return self.small_BK[:, 2 * hidden : 2 * hidden + 1]


def initial_weights(
    keys: list[tuple[int, int]], num_features: int, hidden_size: int, seed: int
) -> MlpWeights:
    """Starting weights, drawn for each probe by (seed, term_id, fold) alone.

    Args:
        keys: (term_id, fold) of each probe.
        num_features: D.
        hidden_size: H; units that pad it to whole registers start, and stay, at zero.
        seed: of the run.
    """
    padded = -(-hidden_size // _LANES) * _LANES
    w = np.zeros((len(keys), num_features, padded), np.float32)
    small = np.zeros((len(keys), 2 * padded + _LANES), np.float32)
    bounds = (6 / (num_features + hidden_size)) ** 0.5, (6 / (hidden_size + 1)) ** 0.5
    root = stream_seed(seed, "concreteness.weights")
    for i, (term_id, fold) in enumerate(keys):
        rng = np.random.default_rng([root, term_id, fold])
        w[i, :, :hidden_size] = _uniform(rng, (num_features, hidden_size), bounds[0])
        small[i, :hidden_size] = _uniform(rng, hidden_size, bounds[0])
        small[i, padded : padded + hidden_size] = _uniform(rng, hidden_size, bounds[1])
        small[i, 2 * padded] = _uniform(rng, 1, bounds[1])[0]
    return MlpWeights(torch.from_numpy(w), torch.from_numpy(small))


def train_mlps(
    x_BSRD: Tensor, target_BSR: Tensor, mask_BSR: Tensor, start: MlpWeights, settings: MlpSettings
) -> MlpWeights:
    """Train B probes.

    Args:
        x_BSRD: standardised rows in ``settings.dtype``, zero where padded.
        target_BSR: float32, 1 for positives and 0 for negatives.
        mask_BSR: float32, 1 for rows and 0 for padding; each step of each probe has a row.
        start: weights on the same device; they are updated in place and returned.
        settings: see there.
    """
    num_steps = x_BSRD.shape[1]
    share_BSR = mask_BSR / mask_BSR.sum(dim=2, keepdim=True)
    w, small = start.w_BDH, start.small_BK
    hidden = w.shape[2]
    w.grad, small.grad = torch.zeros_like(w), torch.zeros_like(small)
    adam = torch.optim.Adam(
        [w, small], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    order = np.random.default_rng([stream_seed(settings.seed, "concreteness.order"), num_steps])
    for _ in range(settings.epochs):
        for step in order.permutation(num_steps):
            x_BRD = x_BSRD[:, step]
            act_BRH, logit_BR = _forward(x_BRD, start, settings.dtype)
            error_BR = (_sigmoid(logit_BR) - target_BSR[:, step]) * share_BSR[:, step]
            error_BR1 = error_BR[:, :, None].to(settings.dtype)
            back_BRH = error_BR1 * start.out_BH1.transpose(1, 2).to(settings.dtype)
            back_BRH = torch.ops.aten.threshold_backward(back_BRH, act_BRH, 0)
            w.grad.copy_(torch.bmm(x_BRD.transpose(1, 2), back_BRH))
            small.grad[:, :hidden] = back_BRH.sum(dim=1, dtype=torch.float32)
            small.grad[:, hidden : 2 * hidden] = torch.bmm(act_BRH.transpose(1, 2), error_BR1)[
                :, :, 0
            ]
            small.grad[:, 2 * hidden] = error_BR.sum(dim=1)
            adam.step()
    w.grad, small.grad = None, None
    return start


def predict_mlps(x_BRD: Tensor, weights: MlpWeights, dtype: torch.dtype) -> Tensor:
    """Logits of shape (B, R), float32; > 0 means positive."""
    return _forward(x_BRD, weights, dtype)[1]


def _forward(x_BRD: Tensor, weights: MlpWeights, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    act_BRH = torch.baddbmm(weights.bias_B1H.to(dtype), x_BRD, weights.w_BDH.to(dtype)).relu_()
    logit_BR = torch.bmm(act_BRH, weights.out_BH1.to(dtype))[:, :, 0].float()
    return act_BRH, logit_BR + weights.out_bias_B1


def _sigmoid(logit_BR: Tensor) -> Tensor:
    """Sigmoid whose bits do not depend on the row's place: torch rounds exp otherwise in the loop's
    vectors than in its remainder, so the rows are filled up to whole vectors."""
    rows = logit_BR.shape[1]
    return torch.sigmoid(torch.nn.functional.pad(logit_BR, (0, -rows % _UNROLL)))[:, :rows]


def _uniform(
    rng: np.random.Generator, shape: int | tuple[int, int], bound: float
) -> NDArray[np.float32]:
    return np.asarray((rng.random(shape, np.float32) * 2 - 1) * np.float32(bound))

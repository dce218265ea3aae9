"""One step of many small binary MLPs: forward, gradients by hand, Adam.

Shapes: B slots, R rows a step, D features, H hidden units, K parameters of a probe in one row.

A step makes no view and allocates nothing of size: fresh blocks cost more page faults than the
arithmetic that fills them. In float32 products read parameters and write gradients where they are;
in bfloat16 they have copies.

Source: SPEC C2, C4; mean logistic loss as in scikit-learn's MLPClassifier; gradients by the chain
rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.kernels.concreteness_mlp import Layout, caster
from pipeline.kernels.products import multiply

BETA_1, BETA_2 = 0.9, 0.999
"""Adam's, as in its paper and in scikit-learn."""
_UNROLL = 64
"""Elements that torch's vector loops take at once, or a multiple of that."""


@dataclass(frozen=True)
class AdamSettings:
    """See `concreteness_train.MlpSettings`."""

    learning_rate: float
    epsilon: float
    weight_decay: float


class Buffers:
    """What B slots are trained in.

    Attributes:
        layout: of a row of parameters.
        kind: type of what products take.
        rows: parameters, gradients and Adam's two moments, each float32 (B, K).
        steps_B: Adam's steps, float32.
        target_R: 1 for the first half of a step's rows, else 0.
        round: float32 values as products take them.
        is_copied: whether products have copies of their own.
        w_BHD, bias_BH, out_BH: parameters as products read them.
        found_BHD: gradient by the weights as a product writes it.
        act_BRH, back_BRH: activations, and errors of the units that are on.
        wide_BRH: the latter as float32.
        logit_BR1, column_BR1: logits, and errors as products read them.
        padded_BR, error_BR: float32 errors, in whole vectors, and those of rows alone.
        each_BHD: float32 scratch.

    Args:
        size: B.
        num_rows: R.
        layout: of a row of parameters.
        precision: "fp32" or "bf16".
        device: torch device.
    """

    def __init__(self, size: int, num_rows: int, layout: Layout, precision: str, device: str):
        self.layout = layout
        self.round = caster(precision, torch.device(device))
        self.kind = kind = self.round(torch.zeros(0, device=device)).dtype
        hidden = layout.hidden

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        self.rows = [zeros(size, layout.size) for _ in range(4)]
        self.steps_B = zeros(size)
        self.act_BRH, self.back_BRH = (zeros(size, num_rows, hidden, dtype=kind) for _ in range(2))
        self.logit_BR1 = zeros(size, num_rows, 1, dtype=kind)
        self.padded_BR = zeros(size, num_rows + -num_rows % _UNROLL)
        self.error_BR = self.padded_BR[:, :num_rows]
        self.each_BHD = zeros(size, hidden, layout.features)
        self.target_R = zeros(num_rows)
        self.target_R[: num_rows // 2] = 1
        self.is_copied = precision != "fp32"
        if self.is_copied:
            self.w_BHD = zeros(size, hidden, layout.features, dtype=kind)
            self.bias_BH, self.out_BH = (zeros(size, hidden, dtype=kind) for _ in range(2))
            self.found_BHD = zeros(size, hidden, layout.features, dtype=kind)
            self.column_BR1 = zeros(size, num_rows, 1, dtype=kind)
            self.wide_BRH = zeros(size, num_rows, hidden)
        else:
            self.w_BHD, self.found_BHD = (layout.weight(rows) for rows in self.rows[:2])
            self.bias_BH, self.out_BH = layout.bias(self.rows[0]), layout.out(self.rows[0])
            self.column_BR1 = self.error_BR[:, :, None]
            self.wide_BRH = self.back_BRH


class Step:
    """Steps of the first ``active`` slots of buffers; the other slots are left as they are."""

    def __init__(self, buffers: Buffers, active: int, adam: AdamSettings) -> None:
        self._adam, self._is_copied, self._round = adam, buffers.is_copied, buffers.round
        self._target_R = buffers.target_R
        layout = buffers.layout
        params, grads, first, second = (rows[:active] for rows in buffers.rows)
        # What products read.
        given_w, given_bias, given_out = (
            of_all[:active] for of_all in (buffers.w_BHD, buffers.bias_BH, buffers.out_BH)
        )
        self._w_BDH, self._bias_B1H = given_w.transpose(1, 2), given_bias[:, None]
        self._out_BH1 = given_out[:, :, None]
        # What stays float32.
        self._factor_BH = layout.out(params)
        self._factor_BH1 = self._factor_BH[:, :, None]
        self._out_bias_B1 = layout.out_bias(params)[:, None]
        # What products and sums write.
        self._found_BHD = buffers.found_BHD[:active]
        # Copies slot by slot: torch converts what lies in one piece faster.
        self._found = list(self._found_BHD.unbind())
        self._grad_w = list(layout.weight(grads).unbind())
        self._given = [*given_w.unbind(), given_bias, given_out]
        self._params = [*layout.weight(params).unbind(), layout.bias(params), layout.out(params)]
        self._grad_w_BHD, self._grad_bias_BH = layout.weight(grads), layout.bias(grads)
        self._grad_out_BH, self._grad_out_bias_B = layout.out(grads), layout.out_bias(grads)
        self._w_BHD, self._bias_BH = layout.weight(params), layout.bias(params)
        self._each_BHD = buffers.each_BHD[:active]
        # Activations and errors.
        self._act_BRH, self._back_BRH = buffers.act_BRH[:active], buffers.back_BRH[:active]
        self._back_BHR = self._back_BRH.transpose(1, 2)
        self._wide_BRH = buffers.wide_BRH[:active]
        self._logit_BR1 = buffers.logit_BR1[:active]
        self._logit_BR = self._logit_BR1[:, :, 0]
        # The product of a row and columns is faster in bfloat16, that of rows and a column else.
        self._logit_sides = (
            (self._out_BH1.transpose(1, 2), self._act_BRH.transpose(1, 2), self._logit_BR[:, None])
            if self._act_BRH.dtype == torch.bfloat16
            else (self._act_BRH, self._out_BH1, self._logit_BR1)
        )
        self._padded_BR, self._error_BR = buffers.padded_BR[:active], buffers.error_BR[:active]
        self._error_BR1 = self._error_BR[:, :, None]
        self._column_BR1 = buffers.column_BR1[:active]
        self._column_BRH = self._column_BR1.expand_as(self._back_BRH)
        # torch's bfloat16 loops widen and narrow each value; of a 16-bit integer that has the sign
        # where bfloat16 has it, the larger of it and 0 is the same, and five times as fast.
        is_narrow = self._act_BRH.dtype == torch.bfloat16
        self._relu_BRH = self._act_BRH.view(torch.int16) if is_narrow else self._act_BRH
        self._steps_B = buffers.steps_B[:active]
        self._adam_rows = [list(rows.unbind()) for rows in (params, grads, first, second)]
        self._step_counts = list(self._steps_B.unbind())

    def run(self, x_BRD: Tensor, share_BR: Tensor) -> None:
        """One step.

        Args:
            x_BRD: rows, in the buffers' kind.
            share_BR: weight of each row in its step's mean loss, 0 for padding.
        """
        self._forward(x_BRD)
        # Error of the mean logistic loss, sigmoid over whole vectors: torch rounds exp otherwise
        # in a loop's vectors than in its remainder.
        torch.add(self._logit_BR, self._out_bias_B1, out=self._error_BR)
        torch.sigmoid_(self._padded_BR)
        self._error_BR.sub_(self._target_R).mul_(share_BR)
        self._backward(x_BRD)
        self._update()

    def _forward(self, x_BRD: Tensor) -> None:
        """act = relu(x W + bias), logit = act out."""
        if self._is_copied:
            torch._foreach_copy_(self._given, [self._rounded(each) for each in self._params])
        multiply(x_BRD, self._w_BDH, self._act_BRH)
        self._act_BRH.add_(self._bias_B1H)
        self._relu_BRH.clamp_min_(0)
        if self._is_copied and self._act_BRH.dtype == torch.float32:
            self._act_BRH.copy_(self._round(self._act_BRH))
        multiply(*self._logit_sides)

    def _backward(self, x_BRD: Tensor) -> None:
        """Gradients of all parameters.

        The loss by a unit's activation is error x out where the unit is on. The factor out, the
        same for all rows, comes last, and activations are linear in the weights where the unit is
        on, so that sum_r act[r] error[r] = sum_d W[d] G[d] + bias g with G, g the gradients by W
        and bias before that factor: neither needs a pass over rows x units.
        """
        if self._is_copied:
            self._column_BR1.copy_(self._rounded(self._error_BR1))
        torch.ops.aten.threshold_backward.grad_input(
            self._column_BRH, self._act_BRH, 0, grad_input=self._back_BRH
        )
        multiply(self._back_BHR, x_BRD, self._found_BHD)
        if self._is_copied:
            torch._foreach_copy_(self._grad_w, self._found)
            self._wide_BRH.copy_(self._back_BRH)
        torch.sum(self._wide_BRH, 1, out=self._grad_bias_BH)
        torch.mul(self._grad_w_BHD, self._w_BHD, out=self._each_BHD)
        torch.sum(self._each_BHD, 2, out=self._grad_out_BH)
        self._grad_out_BH.addcmul_(self._grad_bias_BH, self._bias_BH)
        self._grad_w_BHD.mul_(self._factor_BH1)
        self._grad_bias_BH.mul_(self._factor_BH)
        torch.sum(self._error_BR, 1, out=self._grad_out_bias_B)

    def _update(self) -> None:
        self._steps_B.add_(1)
        params, grads, first, second = self._adam_rows
        torch._fused_adam_(
            params,
            grads,
            first,
            second,
            [],
            self._step_counts,
            lr=self._adam.learning_rate,
            beta1=BETA_1,
            beta2=BETA_2,
            weight_decay=self._adam.weight_decay,
            eps=self._adam.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def _rounded(self, values: Tensor) -> Tensor:
        """Values that a copy into the buffers' kind rounds, or rounded ones where it would not."""
        return values if self._act_BRH.dtype == torch.bfloat16 else self._round(values)

"""Many small binary MLPs trained side by side as batched matrix products.

Shapes: B slots, S steps an epoch, R rows a step, D features, H hidden units (padded to whole vector
registers), K parameters of a probe in one row.

Probes of one shape take turns in B slots. One step is two large products a slot, a few passes over
all activations and one fused Adam over all parameters; gradients are written by hand, and no tensor
is allocated in a step (a fresh 400 KB block costs more page faults than the arithmetic that fills
it). A probe that is done hands its slot to the next one, so early stopping saves its time.
Nothing mixes slots: each has its own Adam state and step count, and a slot's bits depend on its
own rows alone.

Source: SPEC C2, C4, C5; start and loss as in scikit-learn's MLPClassifier (Glorot uniform, mean
logistic loss); gradients by the chain rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline.kernels.concreteness_mlp import LANES, Layout, Mlp, caster, initial_parameters
from pipeline.kernels.products import multiply

_UNROLL = 64
"""Elements that torch's vector loops take at once, or a multiple of that."""
BETA_1, BETA_2 = 0.9, 0.999
"""Adam's, as in its paper and in scikit-learn."""


@dataclass(frozen=True)
class MlpSettings:
    """Hyper-parameters of one training run.

    Attributes:
        hidden: H, units of the one ReLU layer.
        epochs: passes over the training rows, at most.
        learning_rate: of Adam.
        epsilon: of Adam.
        weight_decay: L2 penalty, weight_decay / 2 * |w|^2 is added to the loss.
        precision: "fp32", or "bf16" for inputs, weights and activations of products; parameters,
            sums and Adam stay float32.
        patience: epochs without a better validation loss after which a probe stops; 0 never.
        min_improvement: by how much a validation loss must be lower to count as better.
        seed: of the starting weights.
    """

    hidden: int
    epochs: int
    learning_rate: float
    epsilon: float
    weight_decay: float
    precision: str
    patience: int
    min_improvement: float
    seed: int


@dataclass(frozen=True)
class Shape:
    """What probes that share slots have in common.

    Attributes:
        steps: S.
        rows: R of one step.
        validation_rows: V; 0 without early stopping.
        features: D.
    """

    steps: int
    rows: int
    validation_rows: int
    features: int


class Probe(Protocol):
    """One model to train."""

    @property
    def key(self) -> tuple[int, ...]:
        """What its starting weights are drawn by, besides the seed."""
        ...

    def load(self, x_SRD: Tensor, mask_SR: Tensor, x_VD: Tensor, mask_V: Tensor) -> None:
        """Fill the slot: rows (zero where padded), positives in the first half of each step and of
        the validation rows; masks 1 for rows and 0 for padding."""
        ...


def train_mlps(
    probes: Sequence[Probe], shape: Shape, settings: MlpSettings, num_slots: int, device: str
) -> Iterator[tuple[int, Mlp]]:
    """Train probes of one shape, ``num_slots`` at a time.

    Args:
        probes: any number.
        shape: of all of them.
        settings: see there.
        num_slots: probes of float32 trained at once, twice as many of bfloat16, which take half the
            room; bounds memory and leaves results alone.
        device: torch device.

    Yields:
        (position in ``probes``, trained probe), in the order in which they finish.
    """
    if not probes:
        return
    value = caster(settings.precision, torch.device(device))(torch.zeros(0))
    size = min(num_slots * 4 // value.element_size(), len(probes))
    slots = _Slots(size, shape, settings, device)
    waiting = list(range(len(probes)))[::-1]
    running: list[int] = []
    while waiting and len(running) < slots.size:
        slots.load(len(running), probes[waiting[-1]])
        running.append(waiting.pop())
    while running:
        slots.run_epoch(len(running))
        for slot in reversed(range(len(running))):
            if not slots.is_done(slot):
                continue
            yield running[slot], slots.result(slot)
            if waiting:
                slots.load(slot, probes[waiting[-1]])
                running[slot] = waiting.pop()
            else:  # the last one moves up, so that those at work stand together
                last = len(running) - 1
                slots.move(last, slot)
                running[slot] = running[last]
                running.pop()


class _Slots:
    """Buffers of B probes and the arithmetic of one step over the first of them."""

    def __init__(self, size: int, shape: Shape, settings: MlpSettings, device: str) -> None:
        self.size, self.shape, self.settings = size, shape, settings
        hidden = -(-settings.hidden // LANES) * LANES
        self.layout = Layout(shape.features, hidden)
        self._cast = caster(settings.precision, torch.device(device))
        self._is_cast = settings.precision != "fp32"
        kind = self._cast(torch.zeros(0, device=device)).dtype
        s, r, v, d = shape.steps, shape.rows, shape.validation_rows, shape.features

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        self._x, self._share = zeros(size, s, r, d, dtype=kind), zeros(size, s, r)
        self._x_val, self._share_val = zeros(size, v, d, dtype=kind), zeros(size, v)
        self._rows = [zeros(size, self.layout.size) for _ in range(4)]
        self._steps = zeros(size)
        self._act, self._back = (zeros(size, r, hidden, dtype=kind) for _ in range(2))
        self._logit, self._error = zeros(size, r, 1, dtype=kind), zeros(size, r + -r % _UNROLL)
        self._target = zeros(r)
        self._target[: r // 2] = 1
        self._target_val = zeros(v)
        self._target_val[: v // 2] = 1
        self._epoch = [0] * size
        self._best, self._since = [float("inf")] * size, [0] * size

    def load(self, slot: int, probe: Probe) -> None:
        """Put a probe into a slot, untrained."""
        mask = torch.empty(self.shape.steps, self.shape.rows)
        mask_val = torch.empty(self.shape.validation_rows)
        probe.load(self._x[slot], mask, self._x_val[slot], mask_val)
        if self._is_cast:
            self._x[slot] = self._cast(self._x[slot])
            self._x_val[slot] = self._cast(self._x_val[slot])
        self._share[slot] = mask / mask.sum(dim=1, keepdim=True)
        self._share_val[slot] = mask_val / mask_val.sum()
        for rows in self._rows:
            rows[slot] = 0
        start = initial_parameters(
            probe.key, self.shape.features, self.settings.hidden, self.settings.seed
        )
        self._rows[0][slot] = torch.from_numpy(start)
        self._steps[slot] = 0
        self._epoch[slot], self._best[slot], self._since[slot] = 0, float("inf"), 0

    def move(self, source: int, target: int) -> None:
        """Let the probe of one slot go on in another."""
        if source == target:
            return
        for rows in (self._x, self._share, self._x_val, self._share_val, *self._rows, self._steps):
            rows[target].copy_(rows[source])
        self._epoch[target] = self._epoch[source]
        self._best[target], self._since[target] = self._best[source], self._since[source]

    def is_done(self, slot: int) -> bool:
        """Whether a probe has had its epochs, or has stopped getting better."""
        if self._epoch[slot] >= self.settings.epochs:
            return True
        if not self.settings.patience:
            return False
        loss = self._validation_loss(slot)
        if loss < self._best[slot] - self.settings.min_improvement:
            self._best[slot], self._since[slot] = loss, 0
        else:
            self._since[slot] += 1
        return self._since[slot] >= self.settings.patience

    def result(self, slot: int) -> Mlp:
        """The probe of a slot as it stands."""
        model = self._model(slot)
        return replace(model, parameters_K=model.parameters_K.clone())

    def _model(self, slot: int) -> Mlp:
        """The probe of a slot, on the parameters at work."""
        shape = (self.layout.features, self.layout.hidden)
        return Mlp(self._rows[0][slot], shape, self.settings.precision, self._epoch[slot])

    def run_epoch(self, active: int) -> None:
        """One pass over the rows of the first ``active`` slots.

        The steps keep their order: batches are random already, and probes that share slots are in
        different epochs.
        """
        params, grads, first, second = (rows[:active] for rows in self._rows)
        layout = self.layout
        w_BDH = layout.weight(params).transpose(1, 2)
        bias, out, out_bias = layout.bias(params), layout.out(params), layout.out_bias(params)
        act, back, logit = self._act[:active], self._back[:active], self._logit[:active]
        padded = self._error[:active]
        error = padded[:, : self.shape.rows]
        error_BR1 = error[:, :, None]
        grad_w, grad_bias = layout.weight(grads), layout.bias(grads)
        grad_out, grad_out_bias = layout.out(grads)[:, :, None], layout.out_bias(grads)
        adam_rows = [list(rows.unbind()) for rows in (params, grads, first, second)]
        steps = self._steps[:active]
        step_counts = list(steps.unbind())
        cast, threshold = self._cast, torch.ops.aten.threshold_backward.grad_input
        for step in range(self.shape.steps):
            x_BRD = self._x[:active, step]
            # Forward: act = relu(x W + bias), logit = act out.
            multiply(x_BRD, cast(w_BDH), act)
            act.add_(cast(bias)[:, None]).relu_()
            if self._is_cast:
                act.copy_(cast(act))
            out_B1H = cast(out)[:, None]
            multiply(act, out_B1H.transpose(1, 2), logit)
            # Error of the mean logistic loss, sigmoid over whole vectors: torch rounds exp
            # otherwise in a loop's vectors than in its remainder.
            torch.add(logit[:, :, 0], out_bias[:, None], out=error)
            torch.sigmoid_(padded)
            error.sub_(self._target).mul_(self._share[:active, step])
            # Backward.
            torch.mul(error_BR1, out_B1H, out=back)
            threshold(back, act, 0, grad_input=back)
            if self._is_cast:
                back.copy_(cast(back))
            multiply(back.transpose(1, 2), x_BRD, grad_w)
            multiply(act.transpose(1, 2), cast(error_BR1), grad_out)
            torch.sum(back, 1, dtype=torch.float32, out=grad_bias)
            torch.sum(error, 1, out=grad_out_bias)
            steps.add_(1)
            torch._fused_adam_(
                adam_rows[0],
                adam_rows[1],
                adam_rows[2],
                adam_rows[3],
                [],
                step_counts,
                lr=self.settings.learning_rate,
                beta1=BETA_1,
                beta2=BETA_2,
                weight_decay=self.settings.weight_decay,
                eps=self.settings.epsilon,
                amsgrad=False,
                maximize=False,
            )
        for slot in range(active):
            self._epoch[slot] += 1

    def _validation_loss(self, slot: int) -> float:
        """Mean logistic loss of the validation rows."""
        logit = self._model(slot).logits(self._x_val[slot])
        each = torch.nn.functional.softplus(logit).addcmul_(logit, self._target_val, value=-1)
        return float(each @ self._share_val[slot])

"""Many small binary MLPs trained side by side as batched matrix products.

Shapes: B slots, S steps an epoch, R rows a step, V validation rows, D features, H hidden units
(padded to whole vector registers).

Probes of one shape take turns in B slots, a step of all at a time (`concreteness_step`). A probe
that is done hands its slot to the next one, so early stopping saves its time.
Nothing mixes slots: each has its own Adam state and step count, and a slot's bits depend on its
own rows alone.

Source: SPEC C2, C4, C5; start as in scikit-learn's MLPClassifier (Glorot uniform).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline.kernels.concreteness_mlp import LANES, Layout, Mlp, caster, initial_parameters
from pipeline.kernels.concreteness_step import AdamSettings, Buffers, Step


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
        s, r, v, d = shape.steps, shape.rows, shape.validation_rows, shape.features
        self._work = Buffers(size, r, self.layout, settings.precision, device)
        kind = self._work.kind

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        self._x, self._share = zeros(s, size, r, d, dtype=kind), zeros(s, size, r)
        self._x_val, self._share_val = zeros(size, v, d, dtype=kind), zeros(size, v)
        self._target_val = zeros(v)
        self._target_val[: v // 2] = 1
        self._adam = AdamSettings(settings.learning_rate, settings.epsilon, settings.weight_decay)
        self._epoch = [0] * size
        self._best, self._since = [float("inf")] * size, [0] * size

    def load(self, slot: int, probe: Probe) -> None:
        """Put a probe into a slot, untrained."""
        mask = torch.empty(self.shape.steps, self.shape.rows)
        mask_val = torch.empty(self.shape.validation_rows)
        x_SRD = self._x[:, slot]
        probe.load(x_SRD, mask, self._x_val[slot], mask_val)
        if self._work.is_copied and x_SRD.dtype == torch.float32:
            x_SRD.copy_(self._work.round(x_SRD))
            self._x_val[slot] = self._work.round(self._x_val[slot])
        self._share[:, slot] = mask / mask.sum(dim=1, keepdim=True)
        self._share_val[slot] = mask_val / mask_val.sum()
        for rows in self._work.rows:
            rows[slot] = 0
        start = initial_parameters(
            probe.key, self.shape.features, self.settings.hidden, self.settings.seed
        )
        self._work.rows[0][slot] = torch.from_numpy(start)
        self._work.steps_B[slot] = 0
        self._epoch[slot], self._best[slot], self._since[slot] = 0, float("inf"), 0

    def move(self, source: int, target: int) -> None:
        """Let the probe of one slot go on in another."""
        if source == target:
            return
        for by_step in (self._x, self._share):
            by_step[:, target].copy_(by_step[:, source])
        work = self._work
        for rows in (self._x_val, self._share_val, *work.rows, work.steps_B):
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
        return Mlp(self._work.rows[0][slot], shape, self.settings.precision, self._epoch[slot])

    def run_epoch(self, active: int) -> None:
        """One pass over the rows of the first ``active`` slots.

        The steps keep their order: batches are random already, and probes that share slots are in
        different epochs.
        """
        step = Step(self._work, active, self._adam)
        for x_BRD, share_BR in zip(self._x, self._share, strict=True):
            step.run(x_BRD[:active], share_BR[:active])
        for slot in range(active):
            self._epoch[slot] += 1

    def _validation_loss(self, slot: int) -> float:
        """Mean logistic loss of the validation rows."""
        logit = self._model(slot).logits(self._x_val[slot])
        each = torch.nn.functional.softplus(logit).addcmul_(logit, self._target_val, value=-1)
        return float(each @ self._share_val[slot])

"""Losses over ragged labels: sums over a micro-batch, to be divided by the global image count.

Shape legend: B images, C labels, P pairs (image, label).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Labels(NamedTuple):
    """Labels of a batch as a ragged list.

    Attributes:
        values: int64 (P,), label ids, distinct within an image.
        offsets: int64 (B + 1,); image i has values[offsets[i]:offsets[i + 1]].
    """

    values: Tensor
    offsets: Tensor


class LossSum(NamedTuple):
    """Sums over the images that have at least one label.

    Attributes:
        loss: scalar, float32 (float64 for float64 logits), with gradient.
        floor: scalar without gradient, the least value `loss` can take.
    """

    loss: Tensor
    floor: Tensor


def loss_sum(name: str, logits_BC: Tensor, labels: Labels) -> LossSum:
    """The named loss, summed over images; images without labels add nothing.

    Args:
        name: multilabel_softmax, sigmoid_bce, or single_label_softmax, which is the first of them
            on batches whose images have at most one label (the loader draws it).
        logits_BC: float of any width; reduced in float32 at least.
        labels: ragged labels on the same device.

    Raises:
        ValueError: unknown name.
    """
    z_BC = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    if name in ("multilabel_softmax", "single_label_softmax"):
        return multilabel_softmax(z_BC, labels)
    if name == "sigmoid_bce":
        return sigmoid_bce(z_BC, labels)
    raise ValueError(
        f"loss {name!r}, expected multilabel_softmax, sigmoid_bce, single_label_softmax."
    )


def multilabel_softmax(z_BC: Tensor, labels: Labels) -> LossSum:
    """Softmax cross-entropy against 1/k on each of an image's k labels.

    Per image: logsumexp(z) - (1/k) sum over its labels of z. Its gradient by z is softmax(z) - y/k,
    its least value ln k. No dense target is built: the pairs are gathered.

    Source: paper section 3.4; Mahajan et al. 2018; SPEC A3, A4.
    """
    counts_B, rows_P = _rows(labels)
    has_label_B = counts_B > 0
    share_P = counts_B.to(z_BC.dtype).reciprocal()[rows_P]
    picked = (z_BC[rows_P, labels.values] * share_P).sum()
    total = (torch.logsumexp(z_BC, dim=1) * has_label_B).sum()
    floor = counts_B.clamp(min=1).to(z_BC.dtype).log().sum()
    return LossSum(total - picked, floor)


def sigmoid_bce(z_BC: Tensor, labels: Labels) -> LossSum:
    """Binary cross-entropy of every label, summed over labels; its least value is 0.

    Source: paper section 3.4, as the loss found worse; SPEC A5.
    """
    counts_B, rows_P = _rows(labels)
    negative = (softplus(z_BC).sum(dim=1) * (counts_B > 0)).sum()
    return LossSum(negative - z_BC[rows_P, labels.values].sum(), z_BC.new_zeros(()))


def _rows(labels: Labels) -> tuple[Tensor, Tensor]:
    """Labels of each image, int64 (B,), and the image of each pair, int64 (P,)."""
    counts_B = labels.offsets.diff()
    rows = torch.arange(len(counts_B), device=counts_B.device)
    return counts_B, rows.repeat_interleave(counts_B, output_size=len(labels.values))

"""Losses against float64 formulas, dense torch losses and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.train.loss import Labels, loss_sum


def ragged(rows: list[list[int]]) -> Labels:
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    values = np.array([v for r in rows for v in r], np.int64)
    return Labels(torch.from_numpy(values), torch.from_numpy(offsets))


def dense(rows: list[list[int]], num_labels: int) -> torch.Tensor:
    target = torch.zeros(len(rows), num_labels, dtype=torch.float64)
    for i, row in enumerate(rows):
        target[i, row] = 1.0
    return target


def oracle(z: np.ndarray, rows: list[list[int]]) -> float:
    """Sum over images of logsumexp(z) - mean of the labels' logits, image by image."""
    total = 0.0
    for logits, row in zip(z, rows, strict=True):
        if row:
            top = logits.max()
            lse = top + math.log(sum(math.exp(v - top) for v in logits))
            total += lse - sum(logits[c] for c in row) / len(row)
    return total


def soft(name: str, z: torch.Tensor, rows: list[list[int]]) -> float:
    return float(loss_sum(name, z, ragged(rows)).loss)


@st.composite
def cases(draw):
    num_labels = draw(st.integers(1, 9))
    label = st.integers(0, num_labels - 1)
    rows = draw(st.lists(st.lists(label, unique=True, max_size=4), min_size=1, max_size=6))
    seed = draw(st.integers(0, 2**16))
    z = np.random.default_rng(seed).normal(0, 4, (len(rows), num_labels))
    return z, rows


def test_by_hand():
    """Logits (0, ln 2, ln 3): softmax (1, 2, 3)/6; labels {1, 2}: ln 6 - (ln 2 + ln 3)/2."""
    z = torch.tensor([[0.0, math.log(2), math.log(3)]], dtype=torch.float64)
    result = loss_sum("multilabel_softmax", z, ragged([[1, 2]]))
    assert float(result.loss) == pytest.approx(math.log(6) / 2, abs=1e-12)
    assert float(result.floor) == pytest.approx(math.log(2), abs=1e-12)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_equals_formula_and_dense_cross_entropy(case):
    z, rows = case
    z64 = torch.from_numpy(z)
    got = soft("multilabel_softmax", z64, rows)
    assert got == pytest.approx(oracle(z, rows), rel=1e-12, abs=1e-10)
    assert soft("multilabel_softmax", z64.float(), rows) == pytest.approx(got, rel=1e-5, abs=1e-5)
    y = dense(rows, z.shape[1])
    k = y.sum(1, keepdim=True)
    labelled = k[:, 0] > 0
    if labelled.any():
        torch_sum = F.cross_entropy(z64[labelled], (y / k)[labelled], reduction="sum")
        assert got == pytest.approx(float(torch_sum), rel=1e-10, abs=1e-10)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_gradient_is_softmax_minus_target_and_zero_without_labels(case):
    z, rows = case
    z64 = torch.from_numpy(z).requires_grad_()
    loss_sum("multilabel_softmax", z64, ragged(rows)).loss.backward()
    y = dense(rows, z.shape[1])
    k = y.sum(1, keepdim=True)
    expected = (z64.detach().softmax(1) - y / k.clamp(min=1)) * (k > 0)
    torch.testing.assert_close(z64.grad, expected, rtol=1e-10, atol=1e-12)


@given(cases(), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_shift_and_label_order_do_not_matter(case, shift):
    z, rows = case
    z64 = torch.from_numpy(z)
    base = soft("multilabel_softmax", z64, rows)
    assert soft("multilabel_softmax", z64 + shift, rows) == pytest.approx(base, abs=1e-9)
    backwards = [row[::-1] for row in rows]
    assert soft("multilabel_softmax", z64, backwards) == pytest.approx(base, abs=1e-12)


@pytest.mark.parametrize("num_labels", [2, 5, 18_000])
def test_starts_at_log_of_the_number_of_labels(num_labels):
    z = torch.zeros(3, num_labels)
    assert soft("multilabel_softmax", z, [[0], [1, 0], [1]]) / 3 == pytest.approx(
        math.log(num_labels), rel=1e-6
    )


def test_least_value_is_the_floor():
    rows = [[0, 3], [1], [0, 1, 2]]
    z = torch.full((3, 5), -40.0, dtype=torch.float64)
    for i, row in enumerate(rows):
        z[i, row] = 40.0
    result = loss_sum("multilabel_softmax", z, ragged(rows))
    assert float(result.loss - result.floor) == pytest.approx(0, abs=1e-9)
    assert float(result.floor) == pytest.approx(math.log(2) + math.log(3))


def test_one_class_and_all_classes():
    assert soft("multilabel_softmax", torch.randn(2, 1), [[0], [0]]) == pytest.approx(0, abs=1e-6)
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert soft("multilabel_softmax", z, [[0, 1, 2, 3]]) >= math.log(4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_logits_stay_finite(dtype):
    z = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    result = loss_sum("multilabel_softmax", z, ragged([[1, 2]]))
    assert result.loss.dtype == torch.float32
    result.loss.backward()
    assert torch.isfinite(z.grad).all()
    assert math.isfinite(float(result.loss.detach()))


@given(cases())
@settings(max_examples=30, deadline=None)
def test_sigmoid_equals_dense(case):
    z, rows = case
    z64 = torch.from_numpy(z)
    y = dense(rows, z.shape[1])
    each = F.binary_cross_entropy_with_logits(z64, y, reduction="none").sum(1)
    expected = float(each[y.sum(1) > 0].sum())
    assert soft("sigmoid_bce", z64, rows) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_single_label_equals_cross_entropy():
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = [[2], [0], [5], [1]]
    expected = F.cross_entropy(z, torch.tensor([r[0] for r in rows]), reduction="sum")
    assert soft("single_label_softmax", z, rows) == pytest.approx(float(expected))


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="hinge"):
        loss_sum("hinge", torch.zeros(1, 2), ragged([[0]]))

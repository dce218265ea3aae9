"""Products in batches: the right numbers, and the same bits alone and in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.kernels import products
from pipeline.kernels.products import multiply, multiply_own

SHAPES = [(200, 256, 64), (64, 200, 256), (200, 64, 1), (64, 200, 1), (2, 1600, 256), (7, 33, 5)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sides(m, k, n, dtype, *, is_turned, count=9):
    random = torch.Generator().manual_seed(m * k + n)
    a = torch.randn(count, k, m, generator=random).to(dtype).transpose(1, 2)
    b = torch.randn(count, k, n, generator=random).to(dtype)
    return (a if is_turned else a.contiguous()), b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_bits_do_not_depend_on_the_batch(m, k, n, is_turned, dtype):
    a, b = sides(m, k, n, dtype, is_turned=is_turned)
    rows = torch.zeros(len(a), m * n + 16, dtype=dtype)  # results in rows with something behind
    whole = rows[:, : m * n].view(-1, m, n)
    multiply(a, b, whole)
    exact = torch.bmm(a.double(), b.double())
    rounding = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2}[dtype]
    assert (whole.double() - exact).abs().max() <= rounding * exact.abs().max()
    assert (rows[:, m * n :] == 0).all()
    for start, stop in [(0, 1), (3, 4), (8, 9), (0, 2), (1, 4), (2, 9)]:
        part = torch.empty(stop - start, m, n, dtype=dtype)
        multiply(a[start:stop], b[start:stop], part)
        assert torch.equal(part, whole[start:stop]), (start, stop)


def test_a_wider_result_takes_the_narrow_one_s_values():
    a, b = sides(5, 40, 3, torch.bfloat16, is_turned=False)
    narrow, wide = torch.empty(9, 5, 3, dtype=torch.bfloat16), torch.empty(9, 5, 3)
    multiply(a, b, narrow)
    multiply(a, b, wide)
    assert torch.equal(narrow.float(), wide)


def test_where_company_changes_bits_each_product_is_alone(monkeypatch):
    """A library that rounds a batch of one otherwise is found out, and not asked for batches."""
    plain, sizes = torch.bmm, []

    def moody(a, b, **options):
        sizes.append(len(a))
        return plain(a, b, **options) + (1e-6 if len(a) == 1 else 0)

    monkeypatch.setattr(torch, "bmm", moody)
    products._is_free_of_company.cache_clear()
    try:
        a, b = sides(6, 20, 4, torch.float32, is_turned=False)
        out = torch.empty(9, 6, 4)
        multiply(a, b, out)
        asked = len(sizes)
        multiply(a[:1], b[:1], torch.empty(1, 6, 4))
        assert len(sizes) == asked
        assert 9 not in sizes
        alone = [x.numpy() @ y.numpy() for x, y in zip(a, b, strict=True)]
        assert np.array_equal(out.numpy(), alone)
    finally:
        products._is_free_of_company.cache_clear()


def test_own_products_are_symmetric_and_right():
    x = torch.randn(3, 50, 12, generator=torch.Generator().manual_seed(1))
    rows = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(2))
    out, sums = torch.empty(3, 12, 12), torch.empty(3, 2, 12)
    multiply_own(x, rows, out, sums)
    assert torch.equal(out, out.transpose(1, 2))
    torch.testing.assert_close(out, torch.bmm(x.transpose(1, 2), x))
    torch.testing.assert_close(sums, torch.bmm(rows, x))

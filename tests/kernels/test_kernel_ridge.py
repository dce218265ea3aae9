"""Kernel ridge regression against scikit-learn, held-out values against real refits."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from pipeline.kernels.kernel_ridge import fit_kernel, kernel_values

GAMMA, RIDGE = 0.7, 0.3


def planted(n=60, d=5, outputs=3):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, d)), rng.random((n, outputs)) < 0.4


def refit(x, y):
    return KernelRidge(kernel="rbf", gamma=GAMMA, alpha=RIDGE).fit(x, y.astype(float))


def test_by_hand():
    fitted = fit_kernel(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]), np.log(2), 1.0)
    # Kernel 1 on the diagonal and 1/2 beside it; with the ridge [[2, .5], [.5, 2]].
    assert fitted.weights[:, 0] == pytest.approx([8 / 15, -2 / 15])
    assert fitted.held_out(0, np.array([0, 1], np.int32)) == pytest.approx([0, 0.25])


def test_values_equal_scikit_learn():
    x, y = planted()
    fitted = fit_kernel(x, y, GAMMA, RIDGE)
    fresh = np.random.default_rng(4).normal(size=(300, 5))
    got = kernel_values(fresh, x, fitted.weights, GAMMA)
    assert got == pytest.approx(refit(x, y).predict(fresh), abs=1e-9)


def test_held_out_values_equal_a_refit_without_the_fold():
    x, y = planted()
    fold = (np.arange(60) % 7 // 2).astype(np.int32)
    fitted = fit_kernel(x, y, GAMMA, RIDGE)
    for output in range(3):
        got = fitted.held_out(output, fold)
        for f in range(4):
            test = fold == f
            slow = refit(x[~test], y[~test, output]).predict(x[test])
            assert got[test] == pytest.approx(slow, abs=1e-9)


def test_a_row_does_not_depend_on_its_company():
    x, y = planted(n=90)
    weights = fit_kernel(x, y, GAMMA, RIDGE).weights
    fresh = np.random.default_rng(5).normal(size=(600, 5))
    whole = kernel_values(fresh, x, weights, GAMMA)
    one_by_one = np.concatenate([kernel_values(row[None], x, weights, GAMMA) for row in fresh])
    assert np.array_equal(one_by_one, whole)

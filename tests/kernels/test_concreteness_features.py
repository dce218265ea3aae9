"""Features of concreteness probes: scikit-learn as oracle, padding, degenerate columns."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

from pipeline.kernels.concreteness_features import Preparation


@pytest.fixture
def raw():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(500, 20)) @ rng.normal(size=(20, 20))
    return (mixed * rng.uniform(0.1, 9, 20) + 5).astype(np.float32)


def unit_rows(raw):
    return normalize(raw.astype(np.float64))


@pytest.mark.parametrize("max_components", [0, 6])
def test_the_length_of_a_row_does_not_matter_and_zero_rows_stay(raw, max_components):
    preparation = Preparation.fit(raw, max_components)
    longer = raw * np.random.default_rng(1).uniform(0.1, 50, (len(raw), 1)).astype(np.float32)
    np.testing.assert_allclose(preparation.apply(longer), preparation.apply(raw), atol=1e-4)
    raw[3] = 0
    assert np.isfinite(Preparation.fit(raw, max_components).apply(raw)).all()


@pytest.mark.parametrize("max_components", [0, 20, 64])
def test_narrow_embeddings_are_standardised(raw, max_components):
    got = Preparation.fit(raw, max_components).apply(raw)
    want = StandardScaler().fit_transform(unit_rows(raw))
    np.testing.assert_allclose(got[:-1], want, atol=1e-4)
    assert not got[-1].any()


def test_wide_embeddings_keep_their_leading_components_and_variances(raw):
    preparation = Preparation.fit(raw, 6)
    got = preparation.apply(raw)
    assert got.shape == (501, 6)
    assert not got[-1].any()
    z = StandardScaler().fit_transform(unit_rows(raw))
    oracle = PCA(6).fit(z)
    want = oracle.transform(z) / np.sqrt(oracle.explained_variance_.mean())
    signs = np.sign((got[:-1] * want).sum(axis=0))
    np.testing.assert_allclose(got[:-1] * signs, want, rtol=2e-3, atol=2e-2)
    assert np.mean(got[:-1] ** 2) == pytest.approx(1, rel=1e-4)
    variances = got[:-1].var(axis=0)
    assert np.all(np.diff(variances) < 0)  # by falling variance, not whitened
    at_largest = np.abs(preparation.rotation).argmax(axis=0)
    assert (preparation.rotation[at_largest, np.arange(6)] > 0).all()


def test_the_order_of_the_pool_hardly_matters_and_constant_columns_do_not_break_it(raw):
    raw[:, 3] = 7
    a, b = Preparation.fit(raw, 6), Preparation.fit(raw[::-1], 6)
    np.testing.assert_allclose(a.apply(raw), b.apply(raw), atol=1e-3)
    assert np.isfinite(a.apply(raw)).all()
    assert np.isfinite(Preparation.fit(np.full((4, 9), 2, np.float32), 3).apply(raw[:, :9])).all()

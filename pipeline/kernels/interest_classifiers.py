"""The two classifiers of interests: kernel ridge for terms, logistic regression for images.

Source: SPEC L2, L3; DESIGN section 24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline.kernels.kernel_ridge import fit_kernel


@dataclass(frozen=True)
class InterestSettings:
    """What a model depends on besides the data. Defaults are in the configuration.

    Attributes:
        num_folds: >= 2; an interest with fewer groups of positives gets as many folds as groups.
        regularisation: C of the logistic regression, on standardised features; with ``gamma`` the
            inverse of the ridge.
        calibration: "platt", or "isotonic" for interests with some thousand seeds.
        max_iterations: of the logistic regression's optimiser.
        seed: of the folds.
        gamma: of the Gaussian kernel exp(-gamma |x - y|^2); None for logistic regression.
    """

    num_folds: int
    regularisation: float
    calibration: Literal["platt", "isotonic"]
    max_iterations: int
    seed: int
    gamma: float | None = None


class LogisticClassifier:
    """Logistic regression on standardised features, told in weights of raw ones.

    Args:
        x: float64 (n, d).
        y: bool (n, L).
        settings: regularisation and iterations.
    """

    examples = None

    def __init__(
        self, x: NDArray[np.float64], y: NDArray[np.bool_], settings: InterestSettings
    ) -> None:
        self._mean, self._scale = x.mean(axis=0), x.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        self._z, self._y, self._settings = (x - self._mean) / self._scale, y, settings
        self.num_weights = x.shape[1]

    def held_out(self, i: int, fold: NDArray[np.int32]) -> NDArray[np.float64]:
        """Decision values (n,) of interest i by classifiers that did not see the example's fold."""
        value = np.empty(len(fold))
        for f in range(int(fold.max()) + 1):
            test = fold == f
            w, b = self._fit(self._z[~test], self._y[~test, i])
            value[test] = self._z[test] @ w + b
        return value

    def final(self, i: int) -> tuple[NDArray[np.float64], float]:
        """Weights of raw features and bias by all examples."""
        w, b = self._fit(self._z, self._y[:, i])
        return w / self._scale, b - float((w / self._scale) @ self._mean)

    def _fit(
        self, z: NDArray[np.float64], y: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], float]:
        model = LogisticRegression(
            C=self._settings.regularisation,
            class_weight="balanced",
            max_iter=self._settings.max_iterations,
        ).fit(z, y)
        return np.asarray(model.coef_[0], np.float64), float(model.intercept_[0])


class KernelClassifier:
    """Kernel ridge regression of 0 and 1, which the calibration turns into probabilities.

    Args:
        x: float32 (n, d).
        y: bool (n, L).
        gamma: of the Gaussian kernel.
        ridge: penalty.
    """

    def __init__(
        self, x: NDArray[np.float32], y: NDArray[np.bool_], gamma: float, ridge: float
    ) -> None:
        self.examples = x
        self.num_weights = len(x)
        self._fitted = fit_kernel(x.astype(np.float64), y.astype(np.float64), gamma, ridge)

    def held_out(self, i: int, fold: NDArray[np.int32]) -> NDArray[np.float64]:
        """As `LogisticClassifier.held_out`."""
        return self._fitted.held_out(i, fold)

    def final(self, i: int) -> tuple[NDArray[np.float64], float]:
        """Weights of the kernel to all examples, and no bias."""
        return self._fitted.weights[:, i], 0.0

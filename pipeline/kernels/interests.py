"""L1 interests of terms and of images: one calibrated linear classifier an interest.

One-versus-rest logistic regression with balanced classes, on text embeddings (terms) or on text
embeddings next to interaction counts (images). Folds serve three ends: decision values of examples
the fold's classifier has not seen, a calibration and a threshold fitted on them, and a report in
which each fold is judged with the calibration and threshold of the OTHER folds. Examples of one
group (copies of one text, forms of one lemma) never straddle folds.

The model is data: a table of numbers, no pickle.

Source: paper section 3.2.1 ("a classification model to map each annotation to its corresponding
top-level interests"); SPEC L1-L4.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline.kernels.calibration import Calibration, best_f1_threshold, fit_calibration
from pipeline.kernels.finite import require_finite
from pipeline.kernels.interest_inputs import assign_folds
from pipeline.kernels.interest_report import REPORT_SCHEMA, Report, held_out_report

TOO_FEW_SEEDS = "too_few_seeds"
OK = "ok"


@dataclass(frozen=True)
class InterestSettings:
    """What a model depends on besides the data. Defaults are in the configuration.

    Attributes:
        num_folds: >= 2; an interest with fewer groups of positives gets as many folds as groups.
        regularisation: C of the logistic regression, on standardised features.
        calibration: "platt", or "isotonic" for interests with some thousand seeds.
        max_iterations: of the optimiser.
        seed: of the folds.
    """

    num_folds: int
    regularisation: float
    calibration: Literal["platt", "isotonic"]
    max_iterations: int
    seed: int


@dataclass(frozen=True)
class InterestModel:
    """Trained classifiers of L interests over d features.

    Attributes:
        interests: L names, in the order of the columns of `predict`.
        weights: float64 (L, d), of raw features; zero for an interest without enough seeds.
        bias: float64 (L,).
        calibration: one map an interest, None where there were too few seeds.
        thresholds: float64 (L,), 2 (never reached) where there were too few seeds.
        report: table of ``REPORT_SCHEMA``, held-out figures.
    """

    interests: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    calibration: tuple[Calibration | None, ...]
    thresholds: NDArray[np.float64]
    report: pa.Table

    def to_json(self) -> str:
        """The whole model as JSON; floats round-trip exactly."""
        return json.dumps(
            {
                "interests": list(self.interests),
                "weights": self.weights.tolist(),
                "bias": self.bias.tolist(),
                "calibration": [
                    None if c is None else {"kind": c.kind, "x": c.x.tolist(), "y": c.y.tolist()}
                    for c in self.calibration
                ],
                "thresholds": self.thresholds.tolist(),
                "report": self.report.to_pylist(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> InterestModel:
        """Inverse of `to_json`."""
        data = json.loads(text)
        return cls(
            tuple(data["interests"]),
            np.asarray(data["weights"], np.float64),
            np.asarray(data["bias"], np.float64),
            tuple(
                None
                if c is None
                else Calibration(c["kind"], np.asarray(c["x"]), np.asarray(c["y"]))
                for c in data["calibration"]
            ),
            np.asarray(data["thresholds"], np.float64),
            pa.Table.from_pylist(data["report"], schema=REPORT_SCHEMA),
        )


def fit(
    ids: NDArray[np.integer],
    features: NDArray[np.floating],
    has_interest: NDArray[np.bool_],
    groups: NDArray[np.integer],
    interests: tuple[str, ...],
    settings: InterestSettings,
) -> InterestModel:
    """Train on labelled seeds.

    Args:
        ids: (n,) distinct ids; they only order the rows, so that input order does not matter.
        features: (n, d), finite.
        has_interest: bool (n, L).
        groups: (n,) integer; examples of one group stay in one fold.
        interests: L names.
        settings: see there.

    Returns:
        The model. An interest with fewer than two groups of positives or of negatives cannot be
        judged: it never fires and has the status ``too_few_seeds`` in the report.

    Raises:
        ValueError: NaN, repeated ids, lengths that do not fit.
    """
    _check(ids, features, has_interest, groups, interests, settings)
    order = np.argsort(ids, kind="stable")
    x, y = np.asarray(features, np.float64)[order], np.asarray(has_interest, bool)[order]
    group = np.asarray(groups)[order]
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    z = (x - mean) / scale
    weights = np.zeros((len(interests), x.shape[1]))
    bias = np.zeros(len(interests))
    thresholds = np.full(len(interests), 2.0)
    calibrations: list[Calibration | None] = []
    rows: list[Report] = []
    for i, name in enumerate(interests):
        fold = assign_folds(group, y[:, i], settings.num_folds, settings.seed)
        if fold is None:
            calibrations.append(None)
            rows.append(Report(name, int(y[:, i].sum()), TOO_FEW_SEEDS))
            continue
        value = _held_out_values(z, y[:, i], fold, settings)
        calibration = fit_calibration(settings.calibration, value, y[:, i])
        thresholds[i] = best_f1_threshold(calibration(value), y[:, i])
        calibrations.append(calibration)
        rows.append(
            held_out_report(name, value, y[:, i], fold, settings.calibration, thresholds[i])
        )
        w, b = _logistic(z, y[:, i], settings)
        weights[i] = w / scale
        bias[i] = b - float(weights[i] @ mean)
    report = pa.Table.from_pylist([vars(r) for r in rows], schema=REPORT_SCHEMA)
    return InterestModel(interests, weights, bias, tuple(calibrations), thresholds, report)


def predict(model: InterestModel, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Calibrated probabilities, float64 (n, L); 0 for interests with too few seeds.

    A row's result does not depend on the rows it comes with.

    Raises:
        ValueError: NaN, or another number of features than the model has.
    """
    if features.ndim != 2 or features.shape[1] != model.weights.shape[1]:
        raise ValueError(
            f"features: shape {features.shape}, expected (n, {model.weights.shape[1]})."
        )
    require_finite(features, "features")
    # einsum instead of @: BLAS takes another kernel, with other rounding, for other row counts.
    value = np.einsum("nd,ld->nl", np.asarray(features, np.float64), model.weights) + model.bias
    probability = np.zeros_like(value)
    for i, calibration in enumerate(model.calibration):
        if calibration is not None:
            probability[:, i] = calibration(value[:, i])
    return np.asarray(probability, np.float64)


def assign(
    model: InterestModel,
    probabilities: NDArray[np.floating],
    fallback_best: bool,
    min_fallback_probability: float = 0.0,
) -> NDArray[np.bool_]:
    """Interests whose probability reaches their threshold, bool (n, L).

    Args:
        model: for its thresholds.
        probabilities: result of `predict`.
        fallback_best: give a row without any interest its most probable one (the first at ties, of
            those that were trained); otherwise the row stays uncategorised.
        min_fallback_probability: least probability of that interest.
    """
    chosen = probabilities >= model.thresholds
    trained = np.array([c is not None for c in model.calibration])
    if fallback_best and trained.any():
        none = np.flatnonzero(~chosen.any(axis=1))
        ranked = np.where(trained, probabilities[none], -1.0)
        best = np.argmax(ranked, axis=1)
        chosen[none, best] = ranked[np.arange(len(none)), best] >= min_fallback_probability
    return np.asarray(chosen, bool)


def _held_out_values(
    z: NDArray[np.float64],
    y: NDArray[np.bool_],
    fold: NDArray[np.int32],
    settings: InterestSettings,
) -> NDArray[np.float64]:
    value = np.empty(len(y))
    for f in range(int(fold.max()) + 1):
        test = fold == f
        w, b = _logistic(z[~test], y[~test], settings)
        value[test] = z[test] @ w + b
    return value


def _logistic(
    z: NDArray[np.float64], y: NDArray[np.bool_], settings: InterestSettings
) -> tuple[NDArray[np.float64], float]:
    model = LogisticRegression(
        C=settings.regularisation, class_weight="balanced", max_iter=settings.max_iterations
    ).fit(z, y)
    return np.asarray(model.coef_[0], np.float64), float(model.intercept_[0])


def _check(
    ids: NDArray[np.integer],
    features: NDArray[np.floating],
    has_interest: NDArray[np.bool_],
    groups: NDArray[np.integer],
    interests: tuple[str, ...],
    settings: InterestSettings,
) -> None:
    n = len(ids)
    if n == 0 or not n == len(features) == len(groups) or has_interest.shape != (n, len(interests)):
        raise ValueError(
            f"interest seeds: {n} ids, {len(features)} features, {len(groups)} groups, labels of "
            f"shape {has_interest.shape}; expected n >= 1 of each and ({n}, {len(interests)})."
        )
    if settings.num_folds < 2:
        raise ValueError(f"num_folds: found {settings.num_folds}, expected >= 2.")
    if len(np.unique(ids)) != n:
        raise ValueError("interest seeds: repeated ids, expected each once.")
    require_finite(features, "interest seed features")

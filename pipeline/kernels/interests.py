"""L1 interests of terms and of images: one calibrated classifier an interest.

Terms: kernel ridge regression on text embeddings, whose subtopics a plane does not part well.
Images: one-versus-rest logistic regression with balanced classes, on text embeddings next to
interaction counts, one product an image. Folds serve three ends: decision values of examples
the fold's classifier has not seen, a calibration and a threshold fitted on them, and a report in
which each fold is judged with the calibration and threshold of the OTHER folds. Examples of one
group (copies of one text, forms of one lemma, words of one source node) never straddle folds.

The model is data: a table of numbers, no pickle.

Source: paper section 3.2.1 ("a classification model to map each annotation to its corresponding
top-level interests"); SPEC L1-L4.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.calibration import Calibration, best_f1_threshold, fit_calibration
from pipeline.kernels.finite import require_finite
from pipeline.kernels.interest_classifiers import (
    InterestSettings,
    KernelClassifier,
    LogisticClassifier,
)
from pipeline.kernels.interest_inputs import assign_folds
from pipeline.kernels.interest_report import (
    REPORT_SCHEMA,
    Report,
    held_out_report,
    report_table,
    too_few,
)
from pipeline.kernels.kernel_ridge import kernel_values

__all__ = ["REPORT_SCHEMA", "InterestModel", "InterestSettings", "assign", "fit", "predict"]


@dataclass(frozen=True)
class InterestModel:
    """Trained classifiers of L interests over d features.

    Attributes:
        interests: L names, in the order of the columns of `predict`.
        weights: float64 (L, d), of raw features, or (L, m) of the kernel to m examples; zero for
            an interest without enough seeds.
        bias: float64 (L,).
        calibration: one map an interest, None where there were too few seeds.
        thresholds: float64 (L,), 2 (never reached) where there were too few seeds.
        report: table of ``REPORT_SCHEMA``, held-out figures.
        examples: float32 (m, d), of a kernel model.
        gamma: of the kernel.
    """

    interests: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    calibration: tuple[Calibration | None, ...]
    thresholds: NDArray[np.float64]
    report: pa.Table
    examples: NDArray[np.float32] | None = None
    gamma: float | None = None

    @property
    def num_features(self) -> int:
        """d."""
        return int((self.weights if self.examples is None else self.examples).shape[1])

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
                "gamma": self.gamma,
                "examples": None if self.examples is None else _pack(self.examples),
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
            None if data["examples"] is None else _unpack(data["examples"]),
            data["gamma"],
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
    classifier: KernelClassifier | LogisticClassifier
    if settings.gamma is not None:
        classifier = KernelClassifier(
            x.astype(np.float32), y, settings.gamma, 1 / settings.regularisation
        )
    else:
        classifier = LogisticClassifier(x, y, settings)
    weights = np.zeros((len(interests), classifier.num_weights))
    bias = np.zeros(len(interests))
    thresholds = np.full(len(interests), 2.0)
    calibrations: list[Calibration | None] = []
    rows: list[Report] = []
    for i, name in enumerate(interests):
        fold = assign_folds(group, y[:, i], settings.num_folds, settings.seed)
        if fold is None:
            calibrations.append(None)
            rows.append(too_few(name, y[:, i], group))
            continue
        value = classifier.held_out(i, fold)
        calibration = fit_calibration(settings.calibration, value, y[:, i])
        thresholds[i] = best_f1_threshold(calibration(value), y[:, i])
        calibrations.append(calibration)
        rows.append(
            held_out_report(name, value, y[:, i], group, fold, settings.calibration, thresholds[i])
        )
        weights[i], bias[i] = classifier.final(i)
    return InterestModel(
        interests,
        weights,
        bias,
        tuple(calibrations),
        thresholds,
        report_table(rows),
        classifier.examples,
        settings.gamma,
    )


def predict(model: InterestModel, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Calibrated probabilities, float64 (n, L); 0 for interests with too few seeds.

    A row's result does not depend on the rows it comes with.

    Raises:
        ValueError: NaN, or another number of features than the model has.
    """
    if features.ndim != 2 or features.shape[1] != model.num_features:
        raise ValueError(f"features: shape {features.shape}, expected (n, {model.num_features}).")
    require_finite(features, "features")
    if model.examples is not None and model.gamma is not None:
        x = np.asarray(features, np.float32)
        value = kernel_values(x, model.examples, model.weights.T, model.gamma)
    else:
        # einsum instead of @: BLAS takes another kernel, with other rounding, for other row counts.
        x = np.asarray(features, np.float64)
        value = np.einsum("nd,ld->nl", x, model.weights) + model.bias
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


def _pack(array: NDArray[np.float32]) -> dict[str, object]:
    raw = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "float32": base64.b64encode(raw).decode("ascii")}


def _unpack(data: dict[str, Any]) -> NDArray[np.float32]:
    raw = base64.b64decode(data["float32"], validate=True)
    return np.frombuffer(raw, "<f4").reshape(data["shape"]).astype(np.float32)


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

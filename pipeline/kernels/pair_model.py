"""A small calibrated model of "these two pictures are one photo", stored as JSON.

Logistic regression on standardised signals, or one hidden layer of tanh units, then
Platt's sigmoid fitted on held-out photos. The threshold is the lowest one whose precision on
held-out photos reaches the stated one. Parameters are numbers in JSON: nothing is unpickled.

Source: SPEC-dataset N7; Platt 1999.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.neural_network import MLPClassifier

from pipeline.kernels.calibration import fit_calibration
from pipeline.kernels.pair_signals import SIGNALS

_FORMAT: Final = 1
_DECIMALS: Final = 6
_CLIP: Final = 4.0
"""Standardised signals are cut here: pictures unlike the training ones must not run away."""

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class PairModel:
    """Parameters of the verifier.

    Attributes:
        mean: (s,), of each signal.
        scale: (s,), standard deviation of each signal, > 0.
        hidden_weight: (s, h), h may be 0.
        hidden_bias: (h,).
        weight: (h,), or (s,) where h is 0.
        bias: of the decision value.
        slope: Platt's, >= 0.
        offset: Platt's.
        threshold: probability from which a pair is taken for one photo.
        precision: what the threshold was set for.
        trained_on: words on the photos.
    """

    mean: F64
    scale: F64
    hidden_weight: F64
    hidden_bias: F64
    weight: F64
    bias: float
    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    precision: float = 0.95
    trained_on: str = ""

    def decision(self, signals: NDArray[np.floating]) -> F64:
        """Decision values (n,) of signals (n, s), before calibration."""
        x = np.clip((np.asarray(signals, np.float64) - self.mean) / self.scale, -_CLIP, _CLIP)
        if len(self.hidden_bias):
            x = np.tanh(x @ self.hidden_weight + self.hidden_bias)
        return np.asarray(x @ self.weight + self.bias, np.float64)

    def predict(self, signals: NDArray[np.floating]) -> F64:
        """Calibrated probabilities (n,) that the pictures of each pair are one photo."""
        return np.asarray(expit(self.slope * self.decision(signals) + self.offset))

    def to_json(self) -> str:
        """The model as text, rounded to six decimals."""
        record: dict[str, Any] = {"format": _FORMAT, "signals": list(SIGNALS)}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                value = value.round(_DECIMALS).tolist()
            record[item.name] = round(value, _DECIMALS) if isinstance(value, float) else value
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PairModel:
        """Read a model.

        Raises:
            ValueError: another format, other signals, or arrays that do not fit each other.
        """
        record = json.loads(text)
        if record.pop("format", None) != _FORMAT or record.pop("signals", None) != list(SIGNALS):
            raise ValueError(
                f"pair model: expected format {_FORMAT} with signals {', '.join(SIGNALS)}. "
                "Fit it anew with pipeline.kernels.pair_model.fit_pair_model."
            )
        arrays = {"mean", "scale", "hidden_weight", "hidden_bias", "weight"}
        missing = {item.name for item in fields(cls)} ^ set(record)
        if missing:
            raise ValueError(f"pair model: missing or unknown {', '.join(sorted(missing))}.")
        values: dict[str, Any] = record | {
            name: np.array(record[name], np.float64) for name in arrays
        }
        model = cls(**values)
        s, h = len(SIGNALS), len(model.hidden_bias)
        wanted = {"mean": (s,), "scale": (s,), "weight": (h or s,)} | (
            {"hidden_weight": (s, h)} if h else {}
        )
        for name, shape in wanted.items():
            found = getattr(model, name)
            if found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"pair model: {name} has shape {found.shape}, expected {shape}.")
        return model


def fit_pair_model(
    signals: NDArray[np.floating],
    is_same: NDArray[np.bool_],
    photo: NDArray[np.integer],
    *,
    precision: float = 0.95,
    num_hidden: int = 0,
    num_folds: int = 5,
    decay: float = 1.0,
    trained_on: str = "",
) -> PairModel:
    """Fit, calibrate and set the threshold.

    Args:
        signals: (n, s), as `pair_signals` gives them.
        is_same: (n,), whether the pair is one photo.
        photo: (n,), photo that the first picture comes from. The pairs of a photo stay in one fold.
        precision: what the threshold is set for, in (0, 1], at the mix of pairs given here.
        num_hidden: units of the hidden layer, 0 for logistic regression.
        num_folds: of the photos, for calibration and threshold.
        decay: weight of the squared parameters.
        trained_on: words kept in the model.

    Raises:
        ValueError: fewer photos than folds, a fold without one of the outcomes, or no threshold
            of this precision.
    """
    _, group = np.unique(photo, return_inverse=True)
    fold = group % num_folds
    held_out = np.zeros(len(is_same))
    for k in range(num_folds):
        inside = fold != k
        if len(np.unique(is_same[inside])) < 2 or inside.all():
            raise ValueError(
                f"pair model: fold {k} of {num_folds} has pairs of one kind only, expected both "
                "kinds from at least as many photos as folds."
            )
        part = _fit(signals[inside], is_same[inside], num_hidden, decay)
        held_out[~inside] = part.decision(signals[~inside])
    platt = fit_calibration("platt", held_out, is_same)
    chance = platt(held_out)
    threshold = threshold_at_precision(chance, is_same, precision)
    if threshold is None:
        raise ValueError(
            f"pair model: no threshold reaches precision {precision} on {len(chance)}."
        )
    model = _fit(signals, is_same, num_hidden, decay)
    return replace(
        model,
        slope=float(platt.x[0]),
        offset=float(platt.x[1]),
        threshold=threshold,
        precision=precision,
        trained_on=trained_on,
    )


def _fit(
    signals: NDArray[np.floating], is_same: NDArray[np.bool_], num_hidden: int, decay: float
) -> PairModel:
    x = np.asarray(signals, np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale < _EPSILON, 1.0, scale)
    x = np.clip((x - mean) / scale, -_CLIP, _CLIP)
    net = MLPClassifier(
        (num_hidden,) if num_hidden else (),
        activation="tanh",
        solver="lbfgs",
        alpha=decay,
        max_iter=1000,
        random_state=0,
    ).fit(x, is_same)
    hidden = net.coefs_[0] if num_hidden else np.zeros((x.shape[1], 0))
    hidden_bias = net.intercepts_[0] if num_hidden else np.zeros(0)
    return PairModel(
        mean, scale, hidden, hidden_bias, net.coefs_[-1][:, 0], float(net.intercepts_[-1][0])
    )


_EPSILON: Final = 1e-9


def threshold_at_precision(
    scores: NDArray[np.floating], is_same: NDArray[np.bool_], precision: float
) -> float | None:
    """Lowest score whose pairs at or above it are right with the stated precision.

    Args:
        scores: (n,), of the candidates.
        is_same: (n,).
        precision: in (0, 1].

    Returns:
        One of the scores; None where no threshold reaches the precision.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    right = np.cumsum(is_same[order])
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]  # ties go together
    good = np.flatnonzero(last & (right >= precision * np.arange(1, len(ordered) + 1)))
    return float(ordered[good[-1]]) if len(good) else None

"""A small calibrated model of "these two pictures are one photo", stored as JSON.

Logistic regression on standardised signals, or one hidden layer of tanh units, then
Platt's sigmoid fitted on held-out photos. A threshold is the lowest one whose precision on held-out
photos reaches a stated one; the model has those of several precisions. Parameters are numbers in
JSON: nothing is unpickled.

A model reads all signals, or all but the cosine: cosines of another encoder have another scale, so
:func:`choose_model` takes the one whose encoder is the run's.

Source: SPEC-dataset N7; Platt 1999.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.neural_network import MLPClassifier

from pipeline.kernels.calibration import fit_calibration, threshold_at_precision
from pipeline.kernels.pair_signals import SIGNALS

_FORMAT: Final = 3
PIXEL_SIGNALS: Final = tuple(name for name in SIGNALS if name != "cosine")
"""Signals that need no encoder."""
PRECISIONS: Final = (0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995)
"""Precisions that a fitted model states thresholds for, as far as its held-out photos reach."""
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
        thresholds: (m, 2), a precision and the probability from which held-out pairs are right with
            it; both ascend.
        trained_on: words on the photos.
        signals: names of the s signals it reads, of `SIGNALS`, in their order.
        encoder: whose cosines it knows; empty where it reads none.
    """

    mean: F64
    scale: F64
    hidden_weight: F64
    hidden_bias: F64
    weight: F64
    bias: float
    slope: float = 1.0
    offset: float = 0.0
    thresholds: tuple[tuple[float, float], ...] = ()
    trained_on: str = ""
    signals: tuple[str, ...] = SIGNALS
    encoder: str = ""

    @property
    def uses_cosine(self) -> bool:
        """Whether the cosine is one of its signals."""
        return "cosine" in self.signals

    def decision(self, signals: NDArray[np.floating]) -> F64:
        """Decision values (n,), before calibration; each follows from its own row alone.

        Args:
            signals: (n, len(SIGNALS)). One that is NaN counts as the mean of training.
        """
        read = _columns(signals, self.signals)
        x = np.clip(np.nan_to_num((read - self.mean) / self.scale), -_CLIP, _CLIP)
        if len(self.hidden_bias):
            each = x[:, None] * self.hidden_weight.T  # no BLAS: it rounds by the number of rows
            x = np.tanh(each.sum(axis=2) + self.hidden_bias)
        return np.asarray((x * self.weight).sum(axis=1) + self.bias, np.float64)

    def predict(self, signals: NDArray[np.floating]) -> F64:
        """Calibrated probabilities (n,) that the pictures of each pair are one photo."""
        return np.asarray(expit(self.slope * self.decision(signals) + self.offset))

    def threshold(self, precision: float) -> float:
        """Probability from which pairs are right with at least this precision.

        It holds for pairs like the held-out ones: where look-alikes are commoner among the
        candidates, precision is lower at the same threshold.

        Args:
            precision: in (0, 1]; the model's next higher stated one counts.

        Raises:
            ValueError: the model states none so high.
        """
        found = [chance for stated, chance in self.thresholds if stated >= precision]
        if not found:
            stated = ", ".join(f"{each:g}" for each, _ in self.thresholds) or "none"
            raise ValueError(
                f"pair model: no threshold for precision {precision:g}, found those for {stated}. "
                "Lower near_duplicates.verify.min_precision, or leave it to min_probability."
            )
        return found[0]

    def to_json(self) -> str:
        """The model as text, rounded to six decimals."""
        record: dict[str, Any] = {"format": _FORMAT}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                value = value.round(_DECIMALS).tolist()
            record[item.name] = round(value, _DECIMALS) if isinstance(value, float) else value
        record["thresholds"] = [[p, round(chance, _DECIMALS)] for p, chance in self.thresholds]
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PairModel:
        """Read a model.

        Raises:
            ValueError: another format, other signals, or arrays that do not fit each other.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"pair model: not JSON ({error}): {text[:40]!r}.") from error
        known = [list(SIGNALS), list(PIXEL_SIGNALS)]
        if record.pop("format", None) != _FORMAT or record.get("signals") not in known:
            raise ValueError(
                f"pair model: expected format {_FORMAT} with signals {', '.join(SIGNALS)}, with or "
                "without the cosine. Fit it anew with `make fit_pair_model`."
            )
        record["signals"] = tuple(record["signals"])
        record["thresholds"] = tuple(tuple(pair) for pair in record.get("thresholds", ()))
        arrays = {"mean", "scale", "hidden_weight", "hidden_bias", "weight"}
        missing = {item.name for item in fields(cls)} ^ set(record)
        if missing:
            raise ValueError(f"pair model: missing or unknown {', '.join(sorted(missing))}.")
        values: dict[str, Any] = record | {
            name: np.array(record[name], np.float64) for name in arrays
        }
        model = cls(**values)
        _check_thresholds(model.thresholds)
        s, h = len(model.signals), len(model.hidden_bias)
        wanted = {"mean": (s,), "scale": (s,), "weight": (h or s,)} | (
            {"hidden_weight": (s, h)} if h else {}
        )
        for name, shape in wanted.items():
            found = getattr(model, name)
            if found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"pair model: {name} has shape {found.shape}, expected {shape}.")
        return model


def _check_thresholds(thresholds: Sequence[Sequence[Any]]) -> None:
    """Raise ValueError unless pairs of numbers from 0 to 1 ascend in both."""
    flat = np.array([*thresholds] or np.zeros((0, 2)), np.float64)
    fits = flat.ndim == 2 and flat.shape[1] == 2 and bool(((flat >= 0) & (flat <= 1)).all())
    if not fits or (np.diff(flat, axis=0) < 0).any():
        raise ValueError(
            f"pair model: thresholds are {thresholds}, expected pairs of a precision and a "
            "probability, ascending."
        )


def choose_model(models: Sequence[PairModel], encoder: str) -> PairModel:
    """The model for the cosines of an encoder.

    Args:
        models: one alone is taken as it stands: whoever gives it knows what it was fitted on.
        encoder: of the run's embeddings; empty where it is not known.

    Returns:
        the first model that knows this encoder, else the first that reads no cosine.

    Raises:
        ValueError: there is none.
    """
    fitting = [m for m in models if m.uses_cosine and m.encoder == encoder and encoder]
    fitting += [m for m in models if not m.uses_cosine]
    if len(models) == 1 or fitting:
        return models[0] if len(models) == 1 else fitting[0]
    known = ", ".join(sorted(m.encoder for m in models)) or "none"
    raise ValueError(
        f"pair models: {len(models)} models, none of encoder {encoder!r} and none without the "
        f"cosine, expected one of them. Encoders: {known}. See `make fit_pair_model`."
    )


def fit_pair_model(
    signals: NDArray[np.floating],
    is_same: NDArray[np.bool_],
    photo: NDArray[np.integer],
    *,
    num_hidden: int = 0,
    num_folds: int = 5,
    decay: float = 1.0,
    trained_on: str = "",
    encoder: str = "",
) -> PairModel:
    """Fit, calibrate and set the thresholds, at the mix of pairs given here.

    Args:
        signals: (n, len(SIGNALS)), as `pair_signals` gives them.
        is_same: (n,), whether the pair is one photo.
        photo: (n,), photo that the first picture comes from. The pairs of a photo stay in one fold.
        num_hidden: units of the hidden layer, 0 for logistic regression.
        num_folds: of the photos, for calibration and thresholds.
        decay: weight of the squared parameters.
        trained_on: words kept in the model.
        encoder: whose cosines the signals hold; empty for a model that does not read them.

    Raises:
        ValueError: fewer photos than folds, or a fold without one of the outcomes.
    """
    names = SIGNALS if encoder else PIXEL_SIGNALS
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
        part = _fit(signals[inside], is_same[inside], names, num_hidden, decay)
        held_out[~inside] = part.decision(signals[~inside])
    platt = fit_calibration("platt", held_out, is_same)
    chance = platt(held_out)
    found = [(stated, threshold_at_precision(chance, is_same, stated)) for stated in PRECISIONS]
    model = _fit(signals, is_same, names, num_hidden, decay)
    return replace(
        model,
        slope=float(platt.x[0]),
        offset=float(platt.x[1]),
        thresholds=tuple((stated, least) for stated, least in found if least is not None),
        trained_on=trained_on,
        encoder=encoder,
    )


def _columns(signals: NDArray[np.floating], names: Sequence[str]) -> F64:
    """Some signals, row by row in memory, so that every row is summed in one order."""
    chosen = np.asarray(signals, np.float64)[:, [SIGNALS.index(name) for name in names]]
    return np.ascontiguousarray(chosen)


def _fit(
    signals: NDArray[np.floating],
    is_same: NDArray[np.bool_],
    names: tuple[str, ...],
    num_hidden: int,
    decay: float,
) -> PairModel:
    x = _columns(signals, names)
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
    weight, bias = net.coefs_[-1][:, 0], float(net.intercepts_[-1][0])
    return PairModel(mean, scale, hidden, hidden_bias, weight, bias, signals=names)


_EPSILON: Final = 1e-9

"""The verifier's model: planted truth, a round trip through JSON, the threshold by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.kernels.calibration import threshold_at_precision
from pipeline.kernels.pair_model import (
    PRECISIONS,
    PairModel,
    choose_model,
    fit_pair_model,
)
from pipeline.kernels.pair_signals import SIGNALS


def planted(n: int = 1800, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Signals whose truth is a known probability: only the first two of them speak."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, len(SIGNALS))).astype(np.float32)
    chance = 1 / (1 + np.exp(-(3 * x[:, 0] + 2 * x[:, 1])))
    return x, rng.random(n) < chance, np.repeat(np.arange(n // 6), 6), chance


@pytest.mark.parametrize("num_hidden", [0, 4])
def test_planted_chance_is_found(num_hidden: int) -> None:
    x, is_same, photo, _ = planted()
    options = {"num_hidden": num_hidden, "decay": 10.0}
    model = fit_pair_model(x, is_same, photo, encoder="planted", **options)
    new, truth, _, chance = planted(4000, seed=1)
    predicted = model.predict(new)
    assert np.abs(predicted - chance).mean() < 0.07  # calibrated, on pairs never seen
    taken = predicted >= model.threshold(0.9)
    assert truth[taken].mean() > 0.85


def test_a_model_survives_json() -> None:
    x, is_same, photo, _ = planted()
    for encoder in ("planted", ""):
        words = {"trained_on": "planted", "encoder": encoder}
        model = fit_pair_model(x, is_same, photo, num_hidden=3, **words)
        read = PairModel.from_json(model.to_json())
        assert np.abs(read.predict(x) - model.predict(x)).max() < 1e-4
        assert read.trained_on == "planted"
        assert np.allclose(read.thresholds, model.thresholds, atol=1e-6)
        assert (read.encoder, read.uses_cosine) == (encoder, bool(encoder))
        assert read.to_json() == model.to_json()


def test_a_model_of_other_signals_is_refused() -> None:
    x, is_same, photo, _ = planted()
    record = json.loads(fit_pair_model(x, is_same, photo, encoder="planted").to_json())
    with pytest.raises(ValueError, match="expected format 3 with signals"):
        PairModel.from_json(json.dumps(record | {"signals": ["cosine"]}))
    with pytest.raises(ValueError, match="missing or unknown slope"):
        PairModel.from_json(json.dumps({k: v for k, v in record.items() if k != "slope"}))
    with pytest.raises(ValueError, match="mean has shape"):
        PairModel.from_json(json.dumps(record | {"mean": [0.0]}))
    for wrong in ([[0.9, 0.5], [0.95, 0.4]], [[0.9, 1.5]], [[0.9]]):
        with pytest.raises(ValueError, match="expected pairs of a precision and a probability"):
            PairModel.from_json(json.dumps(record | {"thresholds": wrong}))


def test_decision_by_hand() -> None:
    zeros = np.zeros(len(SIGNALS))
    weight = zeros.copy()
    weight[0] = 2.0
    none = np.zeros((len(SIGNALS), 0))
    model = PairModel(zeros, zeros + 1, none, np.zeros(0), weight, bias=-1.0)
    given = np.zeros((3, len(SIGNALS)))
    given[:, 0] = [0.5, 1.0, 100.0]  # cut at four deviations
    assert model.decision(given).tolist() == [0.0, 1.0, 7.0]
    assert model.predict(given)[0] == 0.5


@pytest.mark.parametrize("num_hidden", [0, 3])
def test_a_model_without_the_cosine_does_not_read_it(num_hidden: int) -> None:
    x, is_same, photo, _ = planted()
    model = fit_pair_model(x, is_same, photo, num_hidden=num_hidden)
    assert not model.uses_cosine
    other = x.copy()
    other[:, SIGNALS.index("cosine")] = np.nan
    assert np.array_equal(model.predict(other), model.predict(x))
    # And no row's chance depends on the others: products of BLAS do.
    each = [float(model.predict(x[k : k + 1])[0]) for k in range(50)]
    assert each == model.predict(x)[:50].tolist()


def test_a_missing_cosine_counts_as_the_mean() -> None:
    x, is_same, photo, _ = planted()
    model = fit_pair_model(x, is_same, photo, encoder="planted")
    at = SIGNALS.index("cosine")
    absent, mean = x.copy(), x.copy()
    absent[:, at], mean[:, at] = np.nan, model.mean[model.signals.index("cosine")]
    assert model.predict(absent) == pytest.approx(model.predict(mean), abs=1e-6)


def test_the_model_of_the_encoder_is_chosen() -> None:
    x, is_same, photo, _ = planted()
    ours, theirs, pixels = (
        fit_pair_model(x, is_same, photo, encoder=encoder) for encoder in ("ours", "theirs", "")
    )
    assert choose_model([ours, theirs, pixels], "theirs") is theirs
    assert choose_model([ours, pixels], "theirs") is pixels
    assert choose_model([ours, pixels], "") is pixels
    assert choose_model([ours], "theirs") is ours  # one alone is the user's choice
    with pytest.raises(ValueError, match="none of encoder 'other' and none without the cosine"):
        choose_model([ours, theirs], "other")
    with pytest.raises(ValueError, match="0 models"):
        choose_model([], "ours")
    with pytest.raises(ValueError, match="not JSON"):
        PairModel.from_json("no model")


def test_the_threshold_of_the_next_higher_stated_precision_is_taken() -> None:
    x, is_same, photo, _ = planted()
    fitted = fit_pair_model(x, is_same, photo)
    model = replace(fitted, thresholds=((0.8, 0.4), (0.95, 0.7)))
    assert [model.threshold(p) for p in (0.5, 0.8, 0.81, 0.95)] == [0.4, 0.4, 0.7, 0.7]
    with pytest.raises(ValueError, match=r"no threshold for precision 0\.96, found .* 0\.8, 0\.95"):
        model.threshold(0.96)
    with pytest.raises(ValueError, match="found those for none"):
        replace(model, thresholds=()).threshold(0.5)
    assert [p for p, _ in fitted.thresholds] == list(PRECISIONS[: len(fitted.thresholds)])
    chances = [chance for _, chance in fitted.thresholds]
    assert chances == sorted(chances)


def test_threshold_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
    is_same = np.array([True, True, False, True, False])
    # Precision at 0.9: 1; at 0.8 (both of the tie): 2/3; at 0.7: 3/4; at 0.6: 3/5.
    assert threshold_at_precision(scores, is_same, 0.95) == 0.9
    assert threshold_at_precision(scores, is_same, 0.75) == 0.7
    assert threshold_at_precision(scores, is_same, 0.6) == 0.6
    assert threshold_at_precision(scores, ~is_same, 0.95) is None
    assert threshold_at_precision(scores[:0], is_same[:0], 0.95) is None


def test_fewer_photos_than_folds_are_refused() -> None:
    x, is_same, photo, _ = planted(60)
    with pytest.raises(ValueError, match="pairs of one kind only"):
        fit_pair_model(x, is_same, np.zeros_like(photo))

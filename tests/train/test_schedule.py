"""Golden learning-rate tables of the paper's recipes, and run lengths by corpus size."""

from __future__ import annotations

import pytest

from pipeline.config.train import OptimizerParams, ScheduleParams
from pipeline.train.schedule import corpus_epochs, lr_at, main_steps, peak_lr

PAPER_IMAGES = 1_329_000_000
VIT = ScheduleParams()
RESNEXT = ScheduleParams(warmup_steps=15_000, decay="plateaus")


def test_vit_table():
    main = main_steps(VIT, PAPER_IMAGES, 8192)
    assert main == 324_463
    table = {0: 0.0, 5_000: 4e-4, 10_000: 8e-4, 172_231: 4.0e-4, 334_463: 0.0}
    for step, expected in table.items():
        assert lr_at(step, VIT, 8e-4, main) == pytest.approx(expected, rel=1e-5, abs=1e-15)


def test_resnext_table():
    main = main_steps(RESNEXT, PAPER_IMAGES, 12_288)
    assert main == 216_309
    peak = peak_lr(OptimizerParams(name="lars", lr=0.03, lr_per_images=256), 12_288)
    assert peak == pytest.approx(1.44)
    table = {7_500: 0.72, 15_000: 1.44, 25_815: 1.44, 25_816: 0.72, 231_308: 1.44 / 2**19}
    for step, expected in table.items():
        assert lr_at(step, RESNEXT, peak, main) == pytest.approx(expected, rel=1e-12)
    assert lr_at(231_308, RESNEXT, peak, main) == pytest.approx(2.75e-6, rel=2e-3)
    assert lr_at(231_309, RESNEXT, peak, main) == lr_at(231_308, RESNEXT, peak, main)


def test_twenty_drops_are_twenty_one_plateaus():
    drops = RESNEXT.model_copy(update={"plateaus": 21})
    assert lr_at(231_308, drops, 1.0, 216_309) == pytest.approx(9.54e-7, rel=1e-3)


def test_rises_then_falls_and_never_leaves_its_range():
    schedule = ScheduleParams(warmup_steps=7, length="steps", steps=31)
    rates = [lr_at(s, schedule, 0.5, 31) for s in range(39)]
    assert rates[:8] == sorted(rates[:8])
    assert rates[7:] == sorted(rates[7:], reverse=True)
    assert (min(rates), max(rates)) == (0.0, 0.5)
    assert lr_at(100, schedule, 0.5, 31) == 0.0


@pytest.mark.parametrize(
    ("millions", "images", "epochs"),
    [
        (13, 100.0, 100.0),
        (40, 33.2, 98.0),
        (130, 10.9, 91.3),
        (400, 4.25, 71.2),
        (665, 2.96, 51.4),
        (1329, 2.0, 2.0),
        (5, 100.0, 100.0),
        (3000, 2.0, 2.0),
    ],
)
def test_length_by_corpus_size(millions, images, epochs):
    n = millions * 1_000_000
    assert corpus_epochs(n, "corpus_images") == pytest.approx(images, rel=4e-3)
    assert corpus_epochs(n, "corpus_epochs") == pytest.approx(epochs, rel=2e-3)


def test_length_modes():
    assert main_steps(ScheduleParams(length="steps", steps=17), 1000, 10) == 17
    assert main_steps(ScheduleParams(epochs=3), 1000, 10) == 300
    assert main_steps(ScheduleParams(length="corpus_images"), PAPER_IMAGES, 8192) == 324_463
    with pytest.raises(ValueError, match="steps"):
        ScheduleParams(length="steps")

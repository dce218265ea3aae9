"""Golden learning-rate tables of the paper's recipes, and run lengths by corpus size."""

from __future__ import annotations

import pytest

from pipeline.config.train import OptimizerParams, ScheduleParams
from pipeline.train.schedule import (
    corpus_epochs,
    hyperrule,
    lr_at,
    main_steps,
    milestone_steps,
    peak_lr,
)

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


def test_cosine_by_hand():
    schedule = ScheduleParams(warmup_steps=10, length="steps", steps=60, decay="cosine")
    table = {0: 0.0, 5: 0.5, 10: 1.0, 30: 0.75, 40: 0.5, 50: 0.25, 70: 0.0}
    for step, expected in table.items():
        assert lr_at(step, schedule, 1.0, 60) == pytest.approx(expected, abs=1e-12)


def test_inverse_square_root_with_cooldown():
    """Half the peak after three timescales; the last steps go to 0 on a line."""
    schedule = ScheduleParams(
        warmup_steps=4, length="steps", steps=1000, decay="rsqrt", timescale=100, cooldown_steps=200
    )
    table = {2: 0.5, 4: 1.0, 104: 2**-0.5, 304: 0.5, 904: 0.5 / 10**0.5, 1004: 0.0}
    for step, expected in table.items():
        assert lr_at(step, schedule, 1.0, 1000) == pytest.approx(expected, abs=1e-12)


def test_bit_upstream_table():
    """1.28M images at 4096: 28,125 steps in 90 epochs, drops at 30, 60 and 80, warm-up inside."""
    bit = ScheduleParams(
        warmup_steps=5000, warmup="inside", epochs=90, decay="milestones", milestones=(30, 60, 80)
    )
    main = main_steps(bit, 1_280_000, 4096)
    assert main + 5000 == 28_125
    assert milestone_steps(bit, main) == [9375, 18_750, 25_000]
    peak = peak_lr(OptimizerParams(name="sgd", lr=0.03, lr_per_images=256), 4096)
    assert peak == pytest.approx(0.48)
    table = {0: 0, 2500: 0.24, 5000: 0.48, 9375: 0.48, 9376: 0.048, 18_751: 0.0048, 28_124: 0.00048}
    for step, expected in table.items():
        assert lr_at(step, bit, peak, main) == pytest.approx(expected, rel=1e-9)


def big_transfer_lr(step: int, supports: list[int], base: float = 0.003) -> float | None:
    """The published code's rule (SPEC E5), in its own form."""
    if step < supports[0]:
        return base * step / supports[0]
    if step >= supports[-1]:
        return None
    return base * 0.1 ** sum(s < step for s in supports[1:])


@pytest.mark.parametrize(
    ("examples", "supports"),
    [
        (19_999, [100, 200, 300, 400, 500]),
        (20_000, [500, 3000, 6000, 9000, 10_000]),
        (499_999, [500, 3000, 6000, 9000, 10_000]),
        (500_000, [500, 6000, 12_000, 18_000, 20_000]),
    ],
)
def test_hyperrule(examples, supports):
    rule = hyperrule(examples, "repository")
    main = main_steps(rule, examples, 512)
    assert rule.warmup_steps + main == supports[-1]
    for step in (0, 1, *(s + d for s in supports for d in (-1, 0, 1) if s + d < supports[-1])):
        expected = big_transfer_lr(step, supports)
        assert lr_at(step, rule, 0.003, main) == pytest.approx(expected, rel=1e-12)

    paper = hyperrule(examples)
    total = supports[-1]
    assert (paper.warmup_steps, main_steps(paper, examples, 512)) == (0, total)
    for tenths, drops in ((3, 0), (6, 1), (9, 2)):
        for after in (0, 1):
            got = lr_at(total * tenths // 10 + after, paper, 1.0, total)
            assert got == pytest.approx(0.1 ** (drops + after), rel=1e-12)


def test_schedules_that_make_no_sense_are_refused():
    for milestones in ((), (2.0, 1.0), (0.0, 1.0), (1.0, 2.0)):
        with pytest.raises(ValueError, match="milestones"):
            ScheduleParams(decay="milestones", milestones=milestones)
    with pytest.raises(ValueError, match="have no unit"):
        ScheduleParams(decay="milestones", length="corpus_images", milestones=(1.0,))
    with pytest.raises(ValueError, match="inside a run of 5 steps"):
        main_steps(ScheduleParams(warmup="inside", length="steps", steps=5, warmup_steps=5), 10, 1)
    with pytest.raises(ValueError, match="expected paper or repository"):
        hyperrule(10, "blog")

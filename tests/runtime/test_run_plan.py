"""Costs of a run from rates, by hand; what is missing is named; the command prints."""

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks.rates import RATES, STATED, newest, rates
from pipeline.config.load import load_config
from pipeline.runtime.run_plan import Corpus, Prices, growth, plan_run, total
from pipeline.runtime.run_plan_text import parse, run_plan, text_of
from pipeline.runtime.run_rates import Rate, load_rates
from pipeline.stages.chain import build_chain

HERE = Path(__file__).resolve().parents[2]
NO_PRICES = Prices()


def rate(**changes):
    given = {"stage": "a", "unit": "images", "rows": 100.0, "core_seconds": 3600.0, "source": "b/a"}
    return Rate(**{**given, **changes})


def test_a_plan_worked_by_hand():
    """100 images took an hour of a core; 1,000 take 10**1.2 hours, 10 GB become 100 GB."""
    known = rate(exponent=1.2, shuffle_bytes=4e9, shuffle_exponent=1.1, output_bytes=10e9)
    (cost,) = plan_run(["a"], [known], Corpus(1_000, 7), Prices(0.05, 0.02, 3))
    assert cost.core_hours == pytest.approx(10**1.2)
    assert cost.shuffle_bytes == pytest.approx(4e9 * 10**1.1)
    assert cost.output_bytes == pytest.approx(100e9)
    assert cost.cost == pytest.approx(10**1.2 * 0.05)
    assert (cost.rows, cost.kind) == (1_000, "measured")


@pytest.mark.parametrize("exponent", [None, 0.4, 1.0])
def test_an_exponent_below_one_is_taken_as_one(exponent):
    assert growth(rate(), 1_000, exponent) == pytest.approx(10)


def test_fewer_rows_than_were_measured_cost_their_share():
    assert growth(rate(), 25, 1.5) == pytest.approx(0.25)


def test_tables_of_hashes_count_where_they_grow_faster_than_the_exponent():
    """At radius 4, 15 tables for 100M hashes are 35 for 1.329 billion (find_near_duplicates)."""
    known = rate(rows=1e8, radius=4)
    assert growth(known, 1.329e9, 1.0) == pytest.approx(13.29 * 35 / 15)
    assert growth(known, 1.329e9, 2.0) == pytest.approx(13.29**2)
    assert growth(known, 5e7, 1.0) == pytest.approx(0.5)


def test_work_on_terms_does_not_grow_with_images():
    rates_ = [rate(unit="terms"), rate(stage="b", unit="once")]
    few, many = (plan_run("ab", rates_, Corpus(n, 200), NO_PRICES) for n in (1e3, 1e9))
    assert [c.core_hours for c in few] == [c.core_hours for c in many] == [2.0, 1.0]


def test_a_stage_without_a_rate_is_named_and_is_no_zero():
    costs = plan_run(["a", "lost"], [rate()], Corpus(100, 1), Prices(2.0))
    lost = costs[1]
    assert (lost.kind, lost.core_hours, lost.cost) == ("not measured", None, None)
    assert total(costs, "core_hours").value == 1.0
    assert total(costs, "core_hours").lacking == ("lost",)
    assert total(costs, "shuffle_bytes").lacking == ("a", "lost")
    text = text_of(costs, Corpus(100, 1), Prices(2.0), 4)
    assert "core-hours: 1, without 1 of 2 entries that have no figure" in text
    assert "not measured, in no total (1): lost" in text


def test_parts_of_a_stage_stand_each_for_itself():
    costs = plan_run("a", [rate(part="x"), rate(part="y")], Corpus(200, 1), NO_PRICES)
    assert [(c.part, c.core_hours) for c in costs] == [("x", 2.0), ("y", 2.0)]


def test_kinds_of_rates_are_marked():
    given = [rate(), rate(stage="b", rows=0.9), rate(stage="c", is_stated=True)]
    costs = plan_run("abc", given, Corpus(100, 1), NO_PRICES)
    assert [cost.kind for cost in costs] == ["measured", "small", "stated"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Corpus(0, 1), "--images: found 0"),
        (lambda: Corpus(math.nan, 1), "--images: found nan"),
        (lambda: Prices(-1.0), "--price-core-hour: found -1"),
        (lambda: Prices(months=-1.0), "--months: found -1"),
        (lambda: rate(rows=0), "rates.json"),
    ],
)
def test_what_cannot_be_is_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_the_command_prints_every_stage(capsys):
    options = ["--images", "1.329e9", "--cores", "1024", "--price-core-hour", "0.05"]
    run_plan(parse("", [*options, "--price-gb-month", "0.02"]))
    told = capsys.readouterr().out
    chain = [stage.name for stage in build_chain(load_config("paper"))]
    for name in chain:
        assert f"\n{name}" in told
    assert told.startswith("plan for 1,329,000,000 images and 218,879 terms")
    for line in ("hours on 1,024 cores: ", "at 0.05 a core-hour", "at 0.02 a GB and month"):
        assert line in told


def test_the_command_without_prices_tells_no_price(capsys):
    run_plan(parse("", ["--images", "1e6"]))
    told = capsys.readouterr().out
    assert "cost of cores: give --price-core-hour" in told
    assert "cost of storage: give --price-gb-month" in told
    assert "hours on" not in told


def test_given_inputs_leave_their_stages_out(capsys):
    given = "inputs.image_embeddings.path=/e"
    run_plan(parse("", ["--images", "1e6", "--set", given]))
    told = capsys.readouterr().out
    assert "\nembed_images" not in told
    assert "\ningest_image_embeddings" in told


def test_no_core_is_refused():
    with pytest.raises(ValueError, match="--cores: found 0"):
        run_plan(parse("", ["--images", "1e6", "--cores", "0"]))


def test_a_plan_starts_no_java(capsys):
    from pyspark import SparkContext

    before = SparkContext._gateway
    run_plan(parse("", ["--images", "1e6"]))
    assert capsys.readouterr().out
    assert SparkContext._gateway is before


def records():
    lines = (HERE / "tests/benchmarks/RESULTS.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_packaged_rates_are_those_of_the_record():
    """python tests/benchmarks/rates.py makes the file anew."""
    assert RATES.read_text() == rates(records())


def test_every_measured_rate_names_its_benchmark_and_commit():
    found = newest(records())
    measured = [known for known in load_rates() if not known.is_stated]
    assert len(measured) > 5
    for known in measured:
        bench, system = known.source.split(" at ")[0].split("/")
        commits = found[bench]["quality"].get("commits", {})
        assert f" at {commits.get(system, found[bench]['commit'])}, " in known.source
        assert system in found[bench]["seconds"]


@pytest.mark.parametrize(("stage", "core_hours", "shuffled", "texts"), STATED)
def test_what_is_stated_stands_in_the_docstring(stage, core_hours, shuffled, texts):
    words = " ".join((HERE / f"pipeline/stages/{stage}.py").read_text().split())
    assert all(text in words for text in texts)
    assert core_hours > 0
    assert shuffled is None or shuffled >= 0


def test_every_rate_is_of_a_stage():
    stages = {path.stem for path in (HERE / "pipeline/stages").glob("*.py")}
    assert {known.stage for known in load_rates()} <= stages


def test_readme_shows_what_the_command_prints(capsys):
    readme = (HERE / "README.md").read_text()
    section = readme.split("## What a billion images cost")[1].split("\n## ")[0]
    asked, shown = re.findall(r"```\n(.*?)```", section, re.S)
    options = re.search(r'ARGS="(.*)"', asked).group(1).split()
    run_plan(parse("", options))
    told = capsys.readouterr().out.splitlines()
    assert len(shown.splitlines()) > 10
    assert not [line for line in shown.splitlines() if line not in told]

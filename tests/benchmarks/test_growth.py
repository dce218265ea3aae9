"""Exponents by hand, figures that are kept over runs, and rates from a record of growth."""

import pytest

from benchmarks.growth import Figure, exponents, measurement
from benchmarks.kept import Kept, sizes
from benchmarks.rates import SINGLES, grown, newest, single


def figure(rows, seconds, cpu, shuffled=0):
    values = {
        "seconds": seconds, "cpu_seconds": cpu, "peak_mib": 300.0, "task_mib": 50.0,
        "shuffle_bytes": shuffled, "spilled_bytes": 5, "spilled_memory_bytes": 9,
        "output_bytes": 4 * rows, "rows_in": rows, "commit": f"c{rows}",
    }  # fmt: skip
    return Figure("sort", rows, values)


def record():
    found = [figure(10, 2.0, 1.0), figure(100, 30.0, 10.0, 50), figure(1_000, 400.0, 200.0, 800)]
    made = measurement({"size": "full", "cores": 2}, found)
    return {"bench": "label_half", "commit": "cc", "machine": "m"} | vars(made)


def test_exponents_between_sizes():
    found = exponents({1_000: 80.0, 100: 8.0, 10: 4.0})
    assert found == pytest.approx({"10-100": 0.30103, "100-1000": 1.0})


def test_a_size_without_a_figure_is_left_out():
    assert exponents({10: 0, 100: 1.0, 1_000: 10.0}) == {"100-1000": pytest.approx(1.0)}


def test_a_record_of_growth():
    made = record()
    assert made["seconds"] == {"sort_10": 2.0, "sort_100": 30.0, "sort_1000": 400.0}
    assert made["rate"]["sort_1000"] == 2.5
    assert made["peak_mib"]["sort_10_task"] == 50.0
    assert made["quality"]["shuffle_bytes"] == {"sort": {"10": 0, "100": 50, "1000": 800}}


def test_a_rate_is_of_the_largest_size():
    (rate,) = grown(record())
    assert (rate["rows"], rate["core_seconds"], rate["output_bytes"]) == (1_000, 200.0, 4_000)
    assert (rate["exponent"], rate["shuffle_exponent"]) == (1.301, 1.2041)
    assert (rate["shuffle_bytes"], rate["spilled_bytes"], rate["mib_a_core"]) == (800, 5, 150.0)
    assert rate["source"] == "label_half/sort_1000 at c1000, m"


def test_a_rate_of_one_size_counts_cores():
    given = SINGLES[0]._replace(cores=2)
    found = {"bench": given.bench, "commit": "cc", "machine": "m", "size": {"cores": 2},
             "seconds": {given.system: 7.0}, "peak_mib": {}, "quality": {}}  # fmt: skip
    assert single(given, found)["core_seconds"] == 14.0
    with pytest.raises(AssertionError, match="cores"):
        single(given, found | {"size": {"cores": 3}})


def test_rates_are_of_the_newest_full_run():
    runs = [("a", "full", 1), ("a", "full", 2), ("a", "small", 3)]
    found = [{"bench": b, "size": {"size": s}, "at": at} for b, s, at in runs]
    assert newest(found)["a"]["at"] == 2


def test_figures_are_kept_over_runs(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    monkeypatch.setenv("BENCH_KEPT", str(path))
    Kept().add("one", {"seconds": 1.0})
    again = Kept()
    assert "one" in again
    assert "two" not in again
    assert again.figures["one"]["seconds"] == 1.0
    assert again.lacks(["one", "two"])
    assert not again.lacks(["one"])
    monkeypatch.setenv("BENCH_CLOSED", "1")
    assert not again.lacks(["two"])
    assert again.figures["one"]["commit"]


def test_nothing_is_kept_where_nobody_asks(monkeypatch):
    monkeypatch.delenv("BENCH_KEPT", raising=False)
    Kept().add("one", {})
    assert "one" not in Kept()


def test_sizes_are_those_that_are_asked_for(monkeypatch):
    monkeypatch.delenv("BENCH_ROWS", raising=False)
    assert sizes((1, 2)) == (1, 2)
    monkeypatch.setenv("BENCH_ROWS", "30,7")
    assert sizes((1, 2)) == (30, 7)

"""The harness itself: what a line holds, what a page shows, what a dead process says."""

import json
import os

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.harness import Measurement, append, in_process, line_of

KEYS = {"bench", "size", "seconds", "rate", "ratio", "quality", "peak_mib", "commit", "machine"}


def filled(_):
    return float(np.ones(40_000_000 // 8).sum()) + float(os.environ["PLANTED"])


def broken(_):
    raise ValueError("planted")


def killed(_):
    os._exit(3)


def test_a_line_holds_the_keys_of_the_contract_and_plain_numbers():
    measured = Measurement(
        {"size": "small", "terms": np.int64(3)}, ratio={"peer": np.float32(1 / 3)}
    )
    record = json.loads(line_of("planted", measured))
    assert set(record) == KEYS
    assert (record["bench"], record["size"]["terms"], record["ratio"]) == (
        "planted",
        3,
        {"peer": 0.3333},
    )


def test_the_page_shows_the_newest_full_run_and_the_history(tmp_path):
    results, page = tmp_path / "r.jsonl", tmp_path / "r.md"
    for size, ratio in (("full", 2.0), ("full", 3.0), ("small", 9.0)):
        append(
            line_of("planted", Measurement({"size": size}, ratio={"peer": ratio})), results, page
        )
    text = page.read_text()
    section, history = text.split("## All runs")
    assert "ratio: peer 3.0" in section
    assert "9.0" not in section
    assert [row.split("|")[4].strip() for row in history.splitlines() if "planted" in row] == [
        "peer 2.0", "peer 3.0", "peer 9.0",
    ]  # fmt: skip
    assert len(results.read_text().splitlines()) == 3


def test_a_system_runs_in_a_process_of_its_own_with_its_variables():
    ran = in_process(filled, None, environment={"PLANTED": "7"})
    assert ran.value == 5_000_007
    assert ran.peak_mib > 0
    assert "PLANTED" not in os.environ


@pytest.mark.parametrize(("function", "says"), [(broken, "planted"), (killed, "exit code 3")])
def test_a_system_that_fails_is_named(function, says):
    with pytest.raises(RuntimeError, match=says):
        in_process(function, None)


def test_every_benchmark_can_be_imported_and_run_is_there():
    import importlib

    from benchmarks.run import names

    for name in names():
        assert callable(importlib.import_module(f"benchmarks.bench_{name}").run), name
    assert harness.FOLDER.name == "benchmarks"

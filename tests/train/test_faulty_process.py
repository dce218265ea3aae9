"""One of two processes is stopped, raises or cannot write: both end, and the run goes on."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from killed_trainer import Fault, train_rank
from ports import free_port
from run_states import last_state, same

from pipeline.config.train import TrainParams
from pipeline.files.storage import open_storage
from pipeline.train.checkpoint import list_checkpoints
from pipeline.train.loop import RESUMABLE_EXIT_CODE

TIMEOUT_SECONDS = 60
"""Of a collective: a process may not need it to learn that another one is gone."""


@pytest.fixture(scope="module")
def run(children, release_root, recipe):
    """Run two processes into a folder; their exit codes and the seconds."""
    values = recipe | {
        "optimizer": recipe.get("optimizer", {}) | {"ema_decay": 0.9},
        "run": recipe["run"] | {"checkpoint_every": 4, "timeout_seconds": TIMEOUT_SECONDS},
    }
    params = TrainParams.model_validate(values).model_dump_json()

    def start(out: Path, fault: Fault | None = None) -> tuple[list[int], float]:
        out.mkdir(exist_ok=True)
        given, began = (free_port(), params, str(release_root), str(out), fault), time.monotonic()
        ranks = [children.Process(target=train_rank, args=(rank, *given)) for rank in (0, 1)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(3 * TIMEOUT_SECONDS)
        return [rank.exitcode for rank in ranks], time.monotonic() - began

    return start


@pytest.fixture(scope="module")
def whole(run, release_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("faulty") / "whole"
    assert run(out)[0] == [0, 0]
    return last_state(out, release_root)


def checkpoints(out: Path) -> list[int]:
    (folder,) = [p for p in out.iterdir() if p.is_dir()]
    names = list_checkpoints(open_storage(f"{folder}/checkpoints"))
    assert not list((folder / "checkpoints").glob(".step-*")), "half of one"
    return [int(re.sub(r"\D", "", name)) for name in names]


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_stops_both_at_the_same_step(run, whole, release_root, tmp_path, rank):
    out = tmp_path / "run"
    codes, _ = run(out, Fault(rank, 5, "sigterm"))
    assert codes == [RESUMABLE_EXIT_CODE] * 2
    assert checkpoints(out)[-1] in (6, 7)  # a signal is told to the others in the same or next step
    assert run(out)[0] == [0, 0]
    assert same(last_state(out, release_root), whole)


@pytest.mark.parametrize(("rank", "kind"), [(1, "raise"), (0, "raise"), (0, "full")])
def test_an_error_in_one_ends_both(run, whole, release_root, tmp_path, rank, kind):
    """Without torchrun, which would kill the other: it must find out, and before the time-out."""
    out = tmp_path / "run"
    update = 8 if kind == "full" else 5
    codes, seconds = run(out, Fault(rank, update, kind))
    assert codes == [1, 1]
    assert seconds < TIMEOUT_SECONDS
    told = "RuntimeError: planted" if kind == "raise" else "OSError: .*No space left on device"
    assert re.match(told, (out / f"rank-{rank}.txt").read_text())
    assert checkpoints(out) == [4]
    assert run(out)[0] == [0, 0]
    assert same(last_state(out, release_root), whole)

"""SIGKILL at random steps and inside a save: the end is the uninterrupted run's, to the bit.

FAULT_KILLS sets how many; a run is killed up to three times on its way before it may finish.
"""

from __future__ import annotations

import os
import signal

import numpy as np
from killed_trainer import Kill, train
from run_states import last_state, same

from pipeline.config.train import TrainParams

KILLS = int(os.environ.get("FAULT_KILLS", "1"))
KILLS_A_RUN = min(KILLS, 3)
UPDATES = 10


def run(children, *arguments: object) -> int:
    child = children.Process(target=train, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def test_killed_runs_end_as_if_never_killed(children, release_root, make_params, tmp_path):
    params = make_params(optimizer={"ema_decay": 0.9}, run={"checkpoint_every": 2})
    assert TrainParams.model_validate_json(params.model_dump_json()) == params
    given = (params.model_dump_json(), str(release_root))
    assert run(children, *given, str(tmp_path / "whole"), None) == 0
    expected = last_state(tmp_path / "whole", release_root)
    rng = np.random.default_rng(7)
    for number in range(-(-KILLS // KILLS_A_RUN)):
        out = tmp_path / f"run-{number}"
        for update in sorted(rng.integers(0, UPDATES, KILLS_A_RUN).tolist()):
            kill = Kill(update, str(rng.choice(["before", "after", "save"])))
            assert run(children, *given, str(out), kill) == -signal.SIGKILL, kill
        assert run(children, *given, str(out), None) == 0
        assert same(last_state(out, release_root), expected)
        assert not list(out.glob("*/checkpoints/.step-*"))

"""Two gloo processes by DDP and by FSDP: one gradient, one checkpoint, one process's result."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ports import free_port

from pipeline.config.train import TrainParams
from pipeline.train.distributed import World
from pipeline.train.parallel import check_parallel

REPO = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("parallel_worker.py")


def start(rank: int, size: int, port: int, *arguments: str) -> subprocess.Popen[str]:
    """One process of a group, without torchrun's agent in front."""
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(REPO),
    }
    command = [sys.executable, str(WORKER), *arguments]
    return subprocess.Popen(command, cwd=REPO, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory, release_root, recipe):
    """What one process found, and what each of two did."""
    over = {
        "model": {**recipe["model"], "drop_path": 0.0},
        "run": {**recipe["run"], "micro_batch": 2},
        "optimizer": {"name": "lars", "trust": 0.5, "ema_decay": 0.5, "clip_norm": 1.0},
    }
    folder = tmp_path_factory.mktemp("parallel")
    params = TrainParams.model_validate({**recipe, **over})
    (folder / "params.json").write_text(params.model_dump_json())
    arguments = [str(folder / "params.json"), str(release_root)]
    port = free_port()
    workers = [start(r, 2, port, *arguments, str(folder / "two")) for r in range(2)]
    runpy.run_path(str(WORKER))["main"](*arguments, str(folder / "one"))
    for worker in workers:
        _, errors = worker.communicate(timeout=200)
        assert worker.returncode == 0, errors
    one = torch.load(folder / "one-0.pt", weights_only=True)
    return one, [torch.load(folder / f"two-{r}.pt", weights_only=True) for r in range(2)]


def close(got: dict, expected: dict, rtol: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(got[name], value, rtol=rtol, atol=rtol * scale + 1e-9)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_have_the_gradient_of_one(results, kind):
    one, two = results
    for rank in two:
        close(rank[kind]["gradients"][0], one["ddp"]["gradients"][0], 1e-5)
    for step in range(2):
        together = [key for rank in two for key in rank[kind]["keys"][step]]
        assert together == one["ddp"]["keys"][step]


def test_fsdp_equals_ddp(results):
    one, two = results
    for rank in two:
        assert rank["fsdp"]["norms"] == pytest.approx(rank["ddp"]["norms"], rel=1e-5)
        for step in range(2):
            close(rank["fsdp"]["gradients"][step], rank["ddp"]["gradients"][step], 1e-4)
        for part in ("model", "ema"):
            close(rank["fsdp state"][part], rank["ddp state"][part], 1e-4)
            close(rank["ddp state"][part], one["ddp state"][part], 1e-3)


def test_each_reads_the_others_checkpoint(results):
    _, two = results
    for rank in two:
        third = rank["ddp then fsdp"]["gradients"][0]
        close(rank["fsdp then ddp"]["gradients"][0], third, 1e-4)


def test_what_several_processes_cannot_do_is_refused(make_params):
    pair = World(0, 2, torch.device("cpu"))
    fsdp = make_params(precision="fp16", run={"parallel": "fsdp"})
    with pytest.raises(ValueError, match="a loss scaler would see"):
        check_parallel(fsdp, pair, torch.float16)
    synchronised = make_params(
        model={
            "name": "resnext101_32x8d",
            "sync_batch_norm": True,
            "patch_size": None,
            "width": None,
            "depth": None,
            "heads": None,
        }
    )
    with pytest.raises(ValueError, match="for CUDA only"):
        check_parallel(synchronised, pair, torch.float32)
    check_parallel(synchronised, World(0, 1, torch.device("cpu")), torch.float32)

"""A whole step of the paper's model as rank 3 of 64, by a process group that only pretends."""

import os

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.load import load_config
from pipeline.train.batch import Batch, Position, StepBatch
from pipeline.train.distributed import World
from pipeline.train.schedule import lr_at, main_steps, peak_lr
from pipeline.train.trainer import Trainer

fake_pg = pytest.importorskip("torch.testing._internal.distributed.fake_pg")

LABELS = 18_000
DEPTH = int(os.environ.get("FAKE_WORLD_DEPTH", "2"))
"""Blocks of the paper's ViT-B/16; all 12 take ten seconds."""


class Hooked(DistributedDataParallel):
    """DDP that reads the summed bucket itself: the fake group's futures hold nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.register_comm_hook(None, all_reduce)


def all_reduce(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    dist.all_reduce(bucket.buffer().div_(dist.get_world_size()))
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.fixture
def world():
    dist.init_process_group("fake", store=fake_pg.FakeStore(), rank=3, world_size=64)
    yield World(3, 64, torch.device("cpu"))
    dist.destroy_process_group()


def micro(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 224, 224), dtype=torch.uint8, generator=generator)
    values = torch.randint(0, LABELS, (3 * size,), generator=generator)
    offsets = torch.arange(0, 3 * size + 1, 3)
    keys = [f"{seed}-{i}" for i in range(size)]
    return Batch(images, values, offsets, torch.ones(size, dtype=torch.bool), keys, [])


@pytest.mark.parametrize(("parallel", "depth", "accumulation"), [("ddp", DEPTH, 1), ("fsdp", 2, 2)])
def test_a_step_of_64(world, monkeypatch, parallel, depth, accumulation):
    """Micro-batches of two images on each of 64: whole in each process, then cut over them."""
    monkeypatch.setattr("pipeline.train.parallel.DistributedDataParallel", Hooked)
    size = 64 * 2 * accumulation
    options = {"data.global_batch": size, "model.depth": depth, "run.parallel": parallel}
    options |= {"run.micro_batch": 2, "precision": "fp32"}
    params = load_config("paper", [f"train.{k}={v}" for k, v in options.items()]).train
    trainer = Trainer(params, LABELS, world)
    main = main_steps(params.schedule, 1_329_000_000, size)
    lr = lr_at(5000, params.schedule, peak_lr(params.optimizer, size), main)
    share = [micro(2, number) for number in range(accumulation)]
    counts = trainer.step(StepBatch(Position(0, 5000), Position(0, 5001), share), lr)
    assert counts.updated
    assert (trainer.update, trainer.position) == (1, Position(0, 5001))
    assert float(trainer.grad_norm) > 0
    average = trainer.optimizer.state[trainer.model.head.weight]["exp_avg"]
    assert float((average.to_local() if parallel == "fsdp" else average).abs().sum()) > 0

"""Started once a process: the same steps by DDP and by FSDP, and each going on from the other."""

import sys
from pathlib import Path

import torch

from pipeline.config.train import TrainParams
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset
from pipeline.train.distributed import World, connect
from pipeline.train.parallel import whole
from pipeline.train.release import Release, open_release
from pipeline.train.trainer import Trainer

STEPS = 2
RATE = 1e-2


def main(params_file: str, release_uri: str, out: str) -> None:
    """Two steps each way; then a third by the other kind from the saved state."""
    params = TrainParams.model_validate_json(Path(params_file).read_text())
    torch.set_num_threads(1)
    with connect(params.run) as world:
        release = open_release(release_uri)
        result = {}
        for kind, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
            trainer = build(params, kind, release, world)
            result[kind] = steps_of(trainer, release, range(STEPS))
            state = trainer.state_dict()
            result[f"{kind} state"] = {"model": state["model"], "ema": state["ema"]}
            heir = build(params, other, release, world)
            heir.load_state_dict(state)
            result[f"{kind} then {other}"] = steps_of(heir, release, [STEPS])
        torch.save(result, f"{out}-{world.rank}.pt")


def build(params: TrainParams, kind: str, release: Release, world: World) -> Trainer:
    run = params.run.model_copy(update={"parallel": kind})
    return Trainer(params.model_copy(update={"run": run}), release.num_labels, world)


def steps_of(trainer: Trainer, release: Release, steps) -> dict:
    """Gradients, keys and norms of some steps."""
    dataset = ShardDataset(
        release, trainer.params, trainer.world.rank, trainer.world.size, Position()
    )
    plan, seen, keys, norms = dataset.plan(0), [], [], []

    def remember(*_: object) -> None:
        named = trainer.model.named_parameters()
        seen.append({name: whole(p.grad).clone() for name, p in named})

    trainer.optimizer.register_step_pre_hook(remember)
    for step in steps:
        batch = dataset.load(plan, step)
        trainer.step(batch, RATE)
        keys.append([key for m in batch.micro for key in m.keys])
        norms.append(float(trainer.grad_norm))
    return {"gradients": seen, "keys": keys, "norms": norms}


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Started by torchrun: two training steps, their gradients, keys and counts to a file per rank."""

import sys
from pathlib import Path

import torch

from pipeline.config.train import TrainParams
from pipeline.train.data import Position, ShardDataset
from pipeline.train.distributed import connect
from pipeline.train.release import open_release
from pipeline.train.trainer import Trainer


def main() -> None:
    """Arguments: params.json, release, prefix of the output files."""
    params = TrainParams.model_validate_json(Path(sys.argv[1]).read_text())
    gradients, keys, labelled = [], [], []
    torch.set_num_threads(1)
    with connect(params.run) as world:
        release = open_release(sys.argv[2])
        trainer = Trainer(params, release.num_labels, world)
        dataset = ShardDataset(release, params, world.rank, world.size, Position())
        trainer.optimizer.register_step_pre_hook(
            lambda *_: gradients.append(
                {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
            )
        )
        plan = dataset.plan(0)
        for step in range(2):
            batch = dataset.load(plan, step)
            counts = trainer.step(batch, 1e-2)
            keys.append([key for m in batch.micro for key in m.keys])
            labelled.append(counts.labelled)
        result = {"gradients": gradients, "keys": keys, "labelled": labelled}
        torch.save(result, f"{sys.argv[3]}-{world.rank}.pt")


if __name__ == "__main__":
    main()

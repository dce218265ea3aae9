"""Started by torchrun: training steps, their gradients, keys and counts to a file per rank.

The last step is made twice: by the trainer that made the others, and by one that was built anew
and loaded the state in between.
"""

import sys
from pathlib import Path

import torch

from pipeline.config.train import TrainParams
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset
from pipeline.train.distributed import connect
from pipeline.train.release import open_release
from pipeline.train.trainer import Trainer

STEPS = 3


def main(params_file: str, release_uri: str, out: str) -> None:
    """Train for three steps, then repeat the third from a saved state."""
    params = TrainParams.model_validate_json(Path(params_file).read_text())
    keys, labelled = [], []
    torch.set_num_threads(1)
    with connect(params.run) as world:
        release = open_release(release_uri)
        trainer = Trainer(params, release.num_labels, world)
        gradients = watch(trainer)
        dataset = ShardDataset(release, params, world.rank, world.size, Position())
        plan = dataset.plan(0)
        batches = [dataset.load(plan, step) for step in range(STEPS)]
        for batch in batches:
            state_file = Path(f"{out}-{world.rank}-state.pt")
            torch.save(trainer.state_dict(), state_file)
            counts = trainer.step(batch, 1e-2)
            keys.append([key for m in batch.micro for key in m.keys])
            labelled.append(counts.labelled)
        resumed = Trainer(params, release.num_labels, world)
        resumed.load_state_dict(torch.load(state_file, weights_only=True))
        resumed_gradients = watch(resumed)
        resumed.step(batches[-1], 1e-2)
        result = {"gradients": gradients, "keys": keys, "labelled": labelled}
        torch.save(result | {"resumed": resumed_gradients}, f"{out}-{world.rank}.pt")


def watch(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    """Gradients as the optimiser sees them, one mapping a step."""
    seen: list[dict[str, torch.Tensor]] = []

    def remember(*_: object) -> None:
        seen.append({n: p.grad.clone() for n, p in trainer.model.named_parameters()})

    trainer.optimizer.register_step_pre_hook(remember)
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])

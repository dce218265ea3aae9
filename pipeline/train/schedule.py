"""Learning rate and length of a run: pure functions of the step and of the corpus size."""

from __future__ import annotations

from pipeline.config.train import OptimizerParams, ScheduleParams

SMALL_CORPUS, SMALL_EPOCHS = 13_000_000, 100.0
LARGE_CORPUS, LARGE_EPOCHS = 1_329_000_000, 2.0


def corpus_epochs(num_images: int, linear_in: str) -> float:
    """Main-phase epochs for a corpus of this size, between 100 at 13M and 2 at 1.329B.

    Args:
        num_images: images shown in one epoch.
        linear_in: "corpus_images": the total shown is linear in the size (40M: 33.2 epochs);
            "corpus_epochs": the epochs are (130M: 91.3). Outside the range the epochs of the
            nearer end hold.

    Source: paper A.1, which interpolates linearly and leaves open what; SPEC A14.
    """
    if num_images <= SMALL_CORPUS:
        return SMALL_EPOCHS
    if num_images >= LARGE_CORPUS:
        return LARGE_EPOCHS
    share = (num_images - SMALL_CORPUS) / (LARGE_CORPUS - SMALL_CORPUS)
    if linear_in == "corpus_epochs":
        return SMALL_EPOCHS + share * (LARGE_EPOCHS - SMALL_EPOCHS)
    small, large = SMALL_EPOCHS * SMALL_CORPUS, LARGE_EPOCHS * LARGE_CORPUS
    return (small + share * (large - small)) / num_images


def main_steps(params: ScheduleParams, num_images: int, global_batch: int) -> int:
    """Steps of the main phase.

    Args:
        params: the schedule.
        num_images: images shown in one epoch, repeats counted.
        global_batch: images a step.

    Returns:
        At least 1. 2 epochs of 1.329 billion at 8192 give 324,463 (paper A.1).
    """
    if params.length == "steps":
        return params.steps
    given = params.length == "epochs"
    epochs = params.epochs if given else corpus_epochs(num_images, params.length)
    return max(1, round(epochs * num_images / global_batch))


def peak_lr(params: OptimizerParams, global_batch: int) -> float:
    """Learning rate at the end of warm-up."""
    if params.lr_per_images is None:
        return params.lr
    return params.lr * global_batch / params.lr_per_images


def lr_at(step: int, params: ScheduleParams, peak: float, main: int) -> float:
    """Learning rate of an update.

    Args:
        step: updates made before this one: 0 for the first. At warmup_steps + main, one past the
            last update, the linear decay reaches 0.
        params: the schedule.
        peak: rate at the end of warm-up.
        main: steps of the main phase.

    Source: paper A.1; SPEC A7-A9.
    """
    if step < params.warmup_steps:
        return peak * step / params.warmup_steps
    done = min(step - params.warmup_steps, main)
    if params.decay == "linear":
        return peak * (main - done) / main
    if params.decay == "plateaus":
        plateau = min(done * params.plateaus // main, params.plateaus - 1)
        return peak * params.plateau_factor**plateau
    return peak

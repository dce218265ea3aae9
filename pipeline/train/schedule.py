"""Learning rate and length of a run: pure functions of the step and of the corpus size."""

from __future__ import annotations

import math

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
    """Steps of the main phase, those after warm-up.

    Args:
        params: the schedule.
        num_images: images shown in one epoch, repeats counted.
        global_batch: images a step.

    Returns:
        At least 1. 2 epochs of 1.329 billion at 8192 give 324,463 (paper A.1).

    Raises:
        ValueError: warm-up is inside the run and leaves nothing of it.
    """
    counted = params.steps
    if params.length != "steps":
        given = params.length == "epochs"
        epochs = params.epochs if given else corpus_epochs(num_images, params.length)
        counted = max(1, round(epochs * num_images / global_batch))
    if params.warmup == "extra":
        return counted
    if counted <= params.warmup_steps:
        raise ValueError(
            f"schedule.warmup_steps = {params.warmup_steps} inside a run of {counted} steps: "
            f"expected fewer. Lower it, or train longer."
        )
    return counted - params.warmup_steps


def peak_lr(params: OptimizerParams, global_batch: int) -> float:
    """Learning rate at the end of warm-up."""
    if params.lr_per_images is None:
        return params.lr
    return params.lr * global_batch / params.lr_per_images


def lr_at(step: int, params: ScheduleParams, peak: float, main: int) -> float:
    """Learning rate of an update.

    Args:
        step: updates made before this one: 0 for the first. At warmup_steps + main, one past the
            last update, the linear and cosine decay reach 0.
        params: the schedule.
        peak: rate at the end of warm-up.
        main: steps of the main phase.

    Source: paper A.1; SPEC A7-A9, E2, G3.
    """
    if step < params.warmup_steps:
        return peak * step / params.warmup_steps
    done = min(step - params.warmup_steps, main)
    if params.decay == "linear":
        return peak * (main - done) / main
    if params.decay == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done / main))
    if params.decay == "plateaus":
        plateau = min(done * params.plateaus // main, params.plateaus - 1)
        return peak * params.plateau_factor**plateau
    if params.decay == "milestones":
        drops = sum(step > m for m in milestone_steps(params, main))
        return peak * params.milestone_factor**drops
    if params.decay == "rsqrt":
        cooldown = min(params.cooldown_steps, main)
        left = min(1.0, (main - done) / cooldown) if cooldown else 1.0
        return peak * left / math.sqrt(1 + done / params.timescale)
    return peak


def milestone_steps(params: ScheduleParams, main: int) -> list[int]:
    """Last step before each drop of the rate.

    Source: the form "drops when step > boundary" of google-research/big_transfer; SPEC E5.
    """
    inside = params.warmup == "inside"
    first, counted = (0, main + params.warmup_steps) if inside else (params.warmup_steps, main)
    end = params.steps if params.length == "steps" else params.epochs
    return [first + round(m * counted / end) for m in params.milestones]


def hyperrule(num_examples: int, form: str = "paper") -> ScheduleParams:
    """BiT's fine-tuning schedule by the number of training examples.

    Args:
        num_examples: of the task; below 20,000 it is small, below 500,000 medium.
        form: "paper": no warm-up, drops at 30, 60 and 90 %. "repository": the published code, which
            warms up to its first listed step, and drops at 40, 60 and 80 % of a small task.

    Raises:
        ValueError: unknown form.

    Source: BiT section 3.3; google-research/big_transfer bit_hyperrule.py; SPEC E5.
    """
    size = 0 if num_examples < 20_000 else 1 if num_examples < 500_000 else 2
    steps = (500, 10_000, 20_000)[size]
    if form == "paper":
        warmup, milestones = 0, tuple(steps * share / 10 for share in (3, 6, 9))
    elif form == "repository":
        warmup = (100, 500, 500)[size]
        milestones = ((200.0, 300, 400), (3000.0, 6000, 9000), (6000.0, 12_000, 18_000))[size]
    else:
        raise ValueError(f"hyperrule form {form!r}, expected paper or repository.")
    return ScheduleParams(
        warmup_steps=warmup,
        warmup="inside",
        length="steps",
        steps=steps,
        decay="milestones",
        milestones=milestones,
    )

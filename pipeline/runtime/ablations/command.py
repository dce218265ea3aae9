"""The ablations of a root from beginning to end: releases, trainings, verdicts."""

from __future__ import annotations

from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.ablations.queries import query_sets
from pipeline.runtime.ablations.releases import HOME, arm_releases
from pipeline.runtime.ablations.report import Record, publish, record_of
from pipeline.runtime.ablations.runs import RunTask, run_tasks
from pipeline.runtime.cli import run_chain
from pipeline.runtime.progress import Progress
from pipeline.runtime.variants import Session, session_of

SHARED = "freeze_labels"
"""Up to this stage the run itself is brought up to date, with pointers: arms take from it."""
_RELEASES, _QUERIES, _TRAIN = "releases", "queries", "train and score"


def run_ablations(config: RunConfig, force: bool = False) -> tuple[Record, str]:
    """Bring the run up to its labels, make the arms' releases, train, score, decide, publish.

    What is there already is not made again: stages by their versions, trainings by their recipe and
    release, scores by what was asked.

    Args:
        config: the run; its section ``ablations`` says what is compared.
        force: run the run's own stages although they are current.

    Returns:
        what was found, and the folder of the results below the root.

    Raises:
        ValueError: arms that cannot be compared; see `query_sets` and `record_of`.
    """
    run_chain(config, force, until=SHARED)
    storage = open_storage(config.root)
    return compare_arms(config, storage, lambda: session_of(config, storage))


def compare_arms(config: RunConfig, storage: Storage, session: Session) -> tuple[Record, str]:
    """`run_ablations` behind the run's own stages.

    Args:
        config: the run.
        storage: its root.
        session: called only where a stage of an arm is to run.
    """
    params = config.ablations
    with Progress([_RELEASES, _QUERIES]) as progress:
        progress.start(_RELEASES)
        arms = arm_releases(
            config, storage, session, lambda *done: progress.update(_RELEASES, *done)
        )
        progress.finish(_RELEASES, note=f"{len({arm.uri for arm in arms.values()})} releases")
        progress.start(_QUERIES)
        sets = query_sets(config, storage, arms)
        progress.finish(_QUERIES, note=", ".join(s.name for s in sets))
    tasks = [
        RunTask(
            train=arm.config.train.model_copy(update={"seed": seed}),
            release=arm.uri,
            out=f"{storage.uri}/{HOME}/runs",
            sets=sets,
            evaluate=params.evaluate,
        )
        for arm in arms.values()
        for seed in params.seeds
    ]
    # Of its own: the seconds before say nothing of how long trainings take.
    with Progress([_TRAIN]) as progress:
        progress.start(_TRAIN)
        results = run_tasks(tasks, params.processes, lambda *done: progress.update(_TRAIN, *done))
        progress.finish(_TRAIN, note=f"{len({task.identity for task in tasks})} runs")
    num = len(params.seeds)
    of_arm = {name: results[i * num : (i + 1) * num] for i, name in enumerate(arms)}
    record = record_of(params, arms, of_arm)
    return record, publish(storage, record)

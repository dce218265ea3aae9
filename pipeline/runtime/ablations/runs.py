"""Trainings of the arms and what their models score: each run a task, several at once.

A finished run leaves its export and its scores; who calls again gets them from there, and a killed
call loses at most what its unfinished runs did since their last checkpoints.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from pipeline.config.evaluate import EvaluateParams, TaggedSet
from pipeline.config.train import TrainParams
from pipeline.evaluate.export import open_export
from pipeline.evaluate.features import extract
from pipeline.evaluate.queries import (
    Embedded,
    few_shot_figures,
    linear_probe_figures,
    retrieval_figures,
)
from pipeline.evaluate.sets import ImageSet, tagged_set
from pipeline.evaluate.tasks import MODEL, RANDOM
from pipeline.files.storage import Storage, open_storage
from pipeline.train.distributed import connect
from pipeline.train.loop import pretrain

_PARAMETERS = "parameters"
Scores = dict[str, NDArray[np.float64]]
"""``<task> <metric>`` -> figure of every query, those of all sets behind each other."""


@dataclass(frozen=True)
class RunTask:
    """One training with its evaluation.

    Attributes:
        train: the recipe.
        release: folder of the release.
        out: folder of all runs.
        sets: what is asked.
        evaluate: how.
    """

    train: TrainParams
    release: str
    out: str
    sets: tuple[TaggedSet, ...]
    evaluate: EvaluateParams

    @property
    def identity(self) -> str:
        """Equal for tasks that ask for the same."""
        return json.dumps([self.train.identity(), self.release], sort_keys=True)


@dataclass(frozen=True)
class RunResult:
    """What became of a task.

    Attributes:
        folder: of the run.
        num_parameters: of its model.
        updates: made.
        scores: of its model.
        untrained: of the same model with the start weights of a seed.
    """

    folder: str
    num_parameters: int
    updates: int
    scores: Scores
    untrained: Scores


def run_tasks(
    tasks: Sequence[RunTask], processes: int, tell: Callable[[int, int], None]
) -> list[RunResult]:
    """Results in the order of the tasks; equal ones run once.

    Args:
        tasks: in any order.
        processes: at once; 1 stays in this process.
        tell: progress, ``tell(runs done, runs)``.

    Raises:
        ValueError: of the first run that fails; those that have not begun are left.
    """
    distinct = {task.identity: task for task in tasks}
    results: dict[str, RunResult] = {}
    tell(0, len(distinct))
    if processes == 1:
        for name, task in distinct.items():
            results[name] = run_task(task)
            tell(len(results), len(distinct))
        return [results[task.identity] for task in tasks]
    # Spawned: a fork would copy the locks of Arrow's and torch's threads.
    context = multiprocessing.get_context("spawn")
    with _children_stopped(), ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = iter(distinct.items())
        running: dict[Future[RunResult], str] = {}
        try:
            # No more than are at work: a pool hands out what it was given, stopped or not.
            while len(results) < len(distinct):
                for name, task in itertools.islice(waiting, processes - len(running)):
                    running[pool.submit(run_task, task)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    results[running.pop(future)] = future.result()
                    tell(len(results), len(distinct))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()  # a training then writes a checkpoint and ends
            raise
    return [results[task.identity] for task in tasks]


@contextmanager
def _children_stopped() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that a stopped caller leaves no training behind."""

    def stop(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_task(task: RunTask) -> RunResult:
    """Train, unless that was done, and score.

    Raises:
        ValueError: the recipe does not fit the release; or the run was asked to stop.
    """
    outcome = pretrain(task.train, task.release, task.out)
    if not outcome.finished:
        raise ValueError(
            f"{outcome.folder}: stopped after {outcome.updates} updates. Run again to go on."
        )
    folder = open_storage(outcome.folder)
    images = [tagged_set(s.name, s.path) for s in task.sets]
    name = f"scores-{_version(task.evaluate, images)}.npz"
    if not folder.exists(name):
        folder.write_bytes_atomic(name, _to_bytes(_score(task, folder, images)))
    config = folder.child("export").read_json("config.json")
    every = _from_bytes(folder.read_bytes(name))
    scores, untrained = (
        {key.removeprefix(of): every[key] for key in every if key.startswith(of)}
        for of in (f"{MODEL}:", f"{RANDOM}:")
    )
    parameters = int(every[_PARAMETERS][0])
    return RunResult(outcome.folder, parameters, int(config["updates"]), scores, untrained)


def _version(params: EvaluateParams, sets: Sequence[ImageSet]) -> str:
    identity = [
        params.model_dump(mode="json", exclude={"device", "threads", "speed", "tagged", "pairs"}),
        [(s.name, s.ids, s.classes.tolist()) for s in sets],
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _score(task: RunTask, folder: Storage, sets: Sequence[ImageSet]) -> Scores:
    parts: dict[str, list[NDArray[np.float64]]] = {}
    with connect(task.train.run) as world:
        export = open_export(f"{folder.uri}/export", task.evaluate.seed, world)
        for images in sets:
            found = extract(
                [export.model, export.random],
                images,
                export.preprocess,
                task.evaluate.batch,
                world,
                lambda *_: None,
                export.train.data.max_corrupt_rate,
            )
            data = Embedded(
                name=images.name,
                ids=[images.ids[i] for i in found.rows],
                classes=images.classes[found.rows],
                vectors=dict(zip((MODEL, RANDOM), found.vectors, strict=True)),
                labels=None,
                num_labels=0,
                params=task.evaluate,
            )
            for name, values in query_scores(data).items():
                parts.setdefault(name, []).append(values)
        parameters = sum(p.numel() for p in export.model.parameters())
    scores = {name: np.concatenate(values) for name, values in parts.items()}
    return {**scores, _PARAMETERS: np.array([parameters], np.float64)}


def query_scores(data: Embedded) -> Scores:
    """Figures of every query of a set, by ``<system>:<task> <metric>``."""
    scores: Scores = {}
    for make in (retrieval_figures, few_shot_figures, linear_probe_figures):
        figures = make(data)
        if figures is not None:
            for system, values in figures.of_system.items():
                names = [f"{system}:{figures.task} {metric}" for metric in figures.metrics]
                scores |= {name: values[:, i] for i, name in enumerate(names)}
    return scores


def _to_bytes(scores: Mapping[str, NDArray[np.float64]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(scores))
    return buffer.getvalue()


def _from_bytes(data: bytes) -> Scores:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

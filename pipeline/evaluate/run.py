"""An evaluation from an export to a published table of results."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipeline.config.evaluate import EvaluateParams
from pipeline.config.train import RunParams
from pipeline.evaluate import tasks
from pipeline.evaluate.export import Export, open_export, own_release
from pipeline.evaluate.features import Features, extract, head_arrays
from pipeline.evaluate.labels import band_of, prior_logits
from pipeline.evaluate.pair_sets import pair_set
from pipeline.evaluate.queries import Embedded
from pipeline.evaluate.scores import LinearScores, PriorScores
from pipeline.evaluate.sets import HELD_OUT, ImageSet, Trained, held_out_set, tagged_set
from pipeline.evaluate.speed import measure_speed
from pipeline.evaluate.table import Row, to_json, to_markdown
from pipeline.files.storage import Storage, open_storage
from pipeline.train.distributed import World, connect
from pipeline.train.events import event
from pipeline.train.release import Release

logger = logging.getLogger(__name__)

_TASKS = ("labels", "retrieval", "few_shot", "linear_probe", "approximate_index")
_PAIR_TASK = "near_duplicates"


class Watcher(Protocol):
    """Who is told how far an evaluation is; ``pipeline.runtime.progress.Progress`` is one."""

    def start(self, stage: str) -> None:
        """A step begins."""

    def update(self, stage: str, done: int, total: int) -> None:
        """A part of it is done."""

    def finish(self, stage: str) -> None:
        """It ended."""


class Unwatched:
    """Nobody is told."""

    def start(self, stage: str) -> None:
        """Nothing."""

    def update(self, stage: str, done: int, total: int) -> None:
        """Nothing."""

    def finish(self, stage: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _Place:
    """Where results go, and the release they are about."""

    home: str
    version: str
    release: Release

    @property
    def folder(self) -> Storage:
        return open_storage(self.home).child(self.version)


def step_names(params: EvaluateParams) -> list[str]:
    """Steps of an evaluation in order, for who watches it."""
    names = [f"{HELD_OUT}/{task}" for task in ("embed", *_TASKS)]
    names += [f"{s.name}/{t}" for s in params.tagged for t in ("embed", *_TASKS[1:])]
    names += [f"{s.name}/{t}" for s in params.pairs for t in ("embed", _PAIR_TASK)]
    return [*names, "speed"]


def evaluate(
    params: EvaluateParams, model_uri: str, release_uri: str, out_uri: str, watcher: Watcher
) -> Storage | None:
    """Evaluate an export and publish ``<out_uri>/<version>/results.{json,md}`` and speed.json.

    ``CURRENT.json`` in ``out_uri`` names the last one. The version is a hash of the export, the
    release, the sets and the parameters; what is published already is left alone. All but
    speed.json is the same for any number of processes.

    Args:
        params: what is measured.
        model_uri: a folder of runs with CURRENT.json, or of an export with config.json.
        release_uri: the release the model was trained on.
        out_uri: where evaluations are.
        watcher: is told of each step.

    Returns:
        the folder of results on the main process, None on the others.

    Raises:
        ValueError: the release is not the export's, or there is nothing to evaluate on.
    """
    run = RunParams(device=params.device, threads=params.threads)
    with connect(run) as world:
        export = open_export(model_uri, params.seed, world)
        release = own_release(export, release_uri)
        shown = export.train.data
        held = held_out_set(release, shown) if shown.holdout_share > 0 else None
        sets = [tagged_set(s.name, s.path) for s in params.tagged]
        sets += [pair_set(s) for s in params.pairs]
        every = [*([held[0]] if held else []), *sets]
        if not every:
            raise ValueError(
                "nothing to evaluate on: the model was trained with data.holdout_share = 0, and "
                "evaluate.tagged and evaluate.pairs name no set. Set train.data.holdout_share and "
                "pretrain again."
            )
        version = _version(params, export, release, every)
        place = _Place(out_uri, version, release)
        if place.folder.exists("results.json"):
            event(logger, "current", folder=place.folder.uri)
            return place.folder if world.is_main else None
        trained = held[1] if held else None
        rows, notes = _measure(params, export, every, trained, world, watcher)
        if not world.is_main:
            return None
        watcher.start("speed")
        _measure_speed(params, export, place.folder, world)
        watcher.finish("speed")
        _publish(params, export, place, rows, notes)
        return place.folder


def _version(params: EvaluateParams, export: Export, release: Release, sets: list[ImageSet]) -> str:
    identity = [
        params.model_dump(mode="json", exclude={"device", "threads"}),
        export.config,
        export.weights_sha256,
        release.manifest_sha256,
        [(s.name, s.ids, s.classes.tolist(), _judgements(s)) for s in sets],
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _judgements(images: ImageSet) -> list[list[int]]:
    return [] if images.pairs is None else [part.tolist() for part in images.pairs]


def _measure(
    params: EvaluateParams,
    export: Export,
    sets: list[ImageSet],
    trained: Trained | None,
    world: World,
    watcher: Watcher,
) -> tuple[list[Row], list[str]]:
    """Rows of all sets; only the main process computes metrics."""
    rows: list[Row] = []
    notes: list[str] = []
    for images in sets:
        step = f"{images.name}/embed"
        watcher.start(step)
        found = extract(
            [export.model, export.random],
            images,
            export.preprocess,
            params.batch,
            world,
            partial(watcher.update, step),
            export.train.data.max_corrupt_rate,
        )
        watcher.finish(step)
        if not world.is_main:
            continue
        notes.append(
            f"{images.name}: {len(found.rows):,} images, {found.num_corrupt} could not be read."
        )
        data = _embedded(params, export, images, found)
        if images.pairs is not None and data.pairs is not None:
            num_lost = len(images.pairs.first) - len(data.pairs.first)
            notes.append(tasks.near_duplicate_note(data, data.pairs, num_lost))
        for name, measure in _measures(params, export, data, trained).items():
            watcher.start(f"{images.name}/{name}")
            rows += measure()
            watcher.finish(f"{images.name}/{name}")
    if trained is not None:
        notes.append(
            f"{HELD_OUT} images are chosen by hash of their keys, share "
            f"{export.train.data.holdout_share}; {trained.num_images:,} images were trained on."
        )
    return rows, notes


def _embedded(
    params: EvaluateParams, export: Export, images: ImageSet, found: Features
) -> Embedded:
    return Embedded(
        name=images.name,
        ids=[images.ids[i] for i in found.rows],
        classes=images.classes[found.rows],
        vectors=dict(zip((tasks.MODEL, tasks.RANDOM), found.vectors, strict=True)),
        labels=None if images.labels is None else images.labels.take(found.rows),
        num_labels=int(export.config["num_classes"]),
        params=params,
        pairs=None if images.pairs is None else images.pairs.among(found.rows),
    )


def _measures(
    params: EvaluateParams, export: Export, data: Embedded, trained: Trained | None
) -> dict[str, Callable[[], list[Row]]]:
    """The evaluators of a set by name, in the order of ``step_names``."""
    pairs = data.pairs
    if pairs is not None:
        return {_PAIR_TASK: lambda: tasks.near_duplicate_rows(data, pairs)}
    measures: dict[str, Callable[[], list[Row]]] = {}
    if trained is not None and data.labels is not None:
        measures["labels"] = lambda: _label_rows(params, export, data, trained)
    measures["retrieval"] = lambda: tasks.retrieval_rows(data)
    measures["few_shot"] = lambda: tasks.few_shot_rows(data)
    measures["linear_probe"] = lambda: tasks.linear_probe_rows(data)
    measures["approximate_index"] = lambda: tasks.approximate_rows(data)
    return measures


def _label_rows(
    params: EvaluateParams, export: Export, data: Embedded, trained: Trained
) -> list[Row]:
    model = LinearScores(data.vectors[tasks.MODEL], *head_arrays(export.model))
    prior = PriorScores(prior_logits(trained.mass), len(data.ids))
    bands = band_of(trained.counts, params.bands.head_min, params.bands.tail_max)
    return tasks.label_rows(data, model, prior, bands)


def _about(params: EvaluateParams, export: Export, release: Release) -> dict[str, Any]:
    return {
        "architecture": export.config["architecture"],
        "updates": export.config["updates"],
        "images_shown": export.config["images_shown"],
        "weights_sha256": export.weights_sha256,
        "preprocess": export.config["pretrained_cfg"],
        "manifest_sha256": release.manifest_sha256,
        "label_map_sha256": release.label_map_sha256,
        "holdout_share": export.train.data.holdout_share,
        "params": params.model_dump(mode="json", exclude={"device", "threads"}),
    }


def _publish(
    params: EvaluateParams, export: Export, place: _Place, rows: list[Row], notes: list[str]
) -> None:
    """Write the table; the pointer comes last."""
    about = _about(params, export, place.release)
    title = (
        f"Evaluation of {export.config['architecture']} after {export.config['updates']} updates"
    )
    page = to_markdown(rows, title, notes)
    folder = place.folder
    folder.write_bytes_atomic("results.md", page.encode())
    folder.write_bytes_atomic("results.json", to_json(rows, about, notes).encode())
    home = open_storage(place.home)
    home.write_json_atomic("CURRENT.json", {"version": place.version, "path": place.version})
    event(logger, "finished", results=f"{folder.uri}/results.md")


def _measure_speed(params: EvaluateParams, export: Export, folder: Storage, world: World) -> None:
    """Time the model; a file of its own, as its figures differ from run to run."""
    found = measure_speed(
        export.model,
        export.preprocess.size,
        world.device,
        params.speed.max_batch,
        params.speed.seconds,
    )
    folder.write_json_atomic("speed.json", found._asdict())

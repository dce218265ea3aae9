"""A pretraining run from a release to exported weights: start or resume, train, stop, finish."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pipeline.config.train import TrainParams
from pipeline.files.storage import Storage, open_storage
from pipeline.train import checkpoint
from pipeline.train.data import ShardDataset
from pipeline.train.distributed import World, connect
from pipeline.train.events import event
from pipeline.train.feed import Feed
from pipeline.train.flops import device_peak, train_flops
from pipeline.train.logs import RunLog, Window, Work, show
from pipeline.train.models import model_arguments
from pipeline.train.release import Release, open_release
from pipeline.train.sampling import shard_weights
from pipeline.train.schedule import lr_at, main_steps, peak_lr
from pipeline.train.trainer import StartWeights, Trainer

logger = logging.getLogger(__name__)

RESUMABLE_EXIT_CODE = 75
"""Exit code of a run that stopped when asked to and can go on (EX_TEMPFAIL)."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        finished: whether all updates were made; if not, the run was asked to stop.
        updates: updates made so far.
        folder: where checkpoints, log and export are.
    """

    finished: bool
    updates: int
    folder: str


@dataclass(frozen=True)
class Run:
    """What stays the same during a run."""

    params: TrainParams
    release: Release
    world: World
    folder: Storage
    total: int
    main: int

    @property
    def checkpoints(self) -> Storage:
        """Folder of the checkpoints."""
        return self.folder.child("checkpoints")

    def lr(self, update: int) -> float:
        """Learning rate of an update."""
        peak = peak_lr(self.params.optimizer, self.params.data.global_batch)
        return lr_at(update, self.params.schedule, peak, self.main)


def pretrain(params: TrainParams, release_uri: str, out_uri: str, fresh: bool = False) -> Outcome:
    """Train on a release; resumes by itself from the newest checkpoint.

    The run's folder is named by what decides its result (parameters without ``run``, manifest), so
    a changed recipe or release starts a new run beside the old one, and a finished one is left
    alone. ``CURRENT.json`` in ``out_uri`` names the last finished run.

    Args:
        params: the recipe.
        release_uri: a release folder, with CURRENT.json or manifest.json.
        out_uri: where the runs are.
        fresh: throw this run's checkpoints and log away first.

    Raises:
        ValueError: sizes, sampling or label map do not fit, or too many images cannot be read.
    """
    with connect(params.run) as world:
        release = open_release(release_uri)
        start, start_sha256 = _start_weights(params, release)
        version = run_version(params, release, start_sha256)
        folder = open_storage(out_uri).child(version)
        if world.is_main:
            _prepare(folder, fresh)
        world.barrier()
        trainer = Trainer(params, release.num_labels, world, start)
        state = checkpoint.load_latest(folder.child("checkpoints"), release.label_map_sha256)
        if state is not None:
            trainer.load_state_dict(state)
        weights = shard_weights(release, params.data, world)
        dataset = ShardDataset(release, params, world.rank, world.size, trainer.position, weights)
        main = main_steps(params.schedule, dataset.images_per_epoch, params.data.global_batch)
        run = Run(params, release, world, folder, params.schedule.warmup_steps + main, main)
        _announce(run, trainer, dataset)
        with stop_signals() as stop:
            finished = _train(run, trainer, dataset, stop)
        if finished:
            _finish(run, trainer, out_uri, version)
        world.barrier()
        return Outcome(finished, trainer.update, folder.uri)


def run_version(params: TrainParams, release: Release, start_sha256: str = "") -> str:
    """Name of a run: 16 hex digits of the hash of recipe, manifest and start weights."""
    identity = {
        "params": params.identity(),
        "manifest_sha256": release.manifest_sha256,
        "start_sha256": start_sha256,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _start_weights(params: TrainParams, release: Release) -> tuple[StartWeights | None, str]:
    """Weights of ``start_from`` and the hash of their file; None and "" without it."""
    if params.start_from is None:
        return None, ""
    export = open_storage(params.start_from)
    weights, config = checkpoint.load_export(export)
    keep_head = config["label_map_sha256"] == release.label_map_sha256
    digest = hashlib.sha256(export.read_bytes(checkpoint.WEIGHTS)).hexdigest()
    return StartWeights(weights, keep_head), digest


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is filled when SIGTERM or SIGINT arrives; a second SIGINT interrupts at once."""
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {s: signal.signal(s, remember) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train(run: Run, trainer: Trainer, dataset: ShardDataset, stop: list[int]) -> bool:
    """Make updates until the last one, or until a process is asked to stop."""
    if trainer.update >= run.total:
        return True
    options, data = run.params.run, run.params.data
    log = RunLog(run.folder, run.world, trainer.update, options.tensorboard)
    feed = Feed(dataset, run.world)
    window = Window(run.world, run.total, data.corrupt_window, _work(run, trainer))
    stopping = False
    while trainer.update < run.total and not stopping:
        batch = feed.next()
        lr = run.lr(trainer.update)
        counts = trainer.step(batch, lr, stop=bool(stop))
        window.add(batch, counts, feed.wait_seconds)
        window.check(data.max_corrupt_rate, data.global_batch)
        stopping = counts.stop > 0
        last = stopping or trainer.update == run.total
        due = trainer.update == 1 or trainer.update % options.log_every == 0
        if last or (counts.updated and due):
            record = window.close(trainer, lr)
            log.write(trainer.update, record)
            log.flush()
            if run.world.is_main:
                show(trainer.update, run.total, record)
        if last or (counts.updated and trainer.update % options.checkpoint_every == 0):
            _save(run, trainer)
    log.close()
    if stopping:
        event(logger, "stopped", step=f"{trainer.update}/{run.total}", resumable=True)
    return trainer.update >= run.total


def _work(run: Run, trainer: Trainer) -> Work | None:
    """What MFU is counted by; None where the device's peak is not known."""
    peak = device_peak(run.world.device, trainer.dtype)
    if peak is None:
        return None
    return Work(train_flops(run.params.model, run.release.num_labels), peak)


def _save(run: Run, trainer: Trainer) -> None:
    """Write a checkpoint; those on the cadence and the last are compared for the best.

    A checkpoint between them, at a stop signal, is not: the run must go on as if never stopped.
    """
    options = run.params.run
    if trainer.update % options.checkpoint_every == 0 or trainer.update == run.total:
        trainer.judge()
    state = {
        **trainer.state_dict(),
        "config": run.params.model_dump(mode="json"),
        "label_map_sha256": run.release.label_map_sha256,
        "manifest_sha256": run.release.manifest_sha256,
        "certificate_sha256": run.release.certificate_sha256,
        "code_version": checkpoint.code_version(),
    }
    if run.world.is_main:
        best = trainer.best_update if options.keep_best and trainer.best_update else None
        name = checkpoint.save_checkpoint(
            run.checkpoints, state, trainer.update, options.keep, best
        )
        if best is not None:
            told = {"name": checkpoint.checkpoint_name(best), "excess_loss": trainer.best_excess}
            run.checkpoints.write_json_atomic("best.json", told)
        event(logger, "checkpoint", file=f"{run.checkpoints.uri}/{name}")


def _finish(run: Run, trainer: Trainer, out_uri: str, version: str) -> None:
    """Export the weights and name this run the current one."""
    weights = trainer.weights()
    if not run.world.is_main:
        return
    params = run.params
    config: dict[str, Any] = {
        "architecture": params.model.name,
        "num_classes": run.release.num_labels,
        "model_args": model_arguments(params.model),
        "pretrained_cfg": {
            "input_size": [3, params.model.image_size, params.model.image_size],
            "interpolation": "bilinear",
            "crop_pct": params.data.eval_crop,
            "crop_mode": "center",
            "mean": list(params.data.mean),
            "std": list(params.data.std),
        },
        "label_map_sha256": run.release.label_map_sha256,
        "manifest_sha256": run.release.manifest_sha256,
        "updates": trainer.update,
        "images_shown": trainer.images_shown,
        "weights": "last" if trainer.ema is None else "ema",
        "train": params.model_dump(mode="json"),
    }
    label_map = run.release.storage.read_bytes("label_map.json")
    export = run.folder.child("export")
    if not export.exists("config.json"):  # a finished run is left alone
        checkpoint.export_model(export, weights, config, label_map)
    open_storage(out_uri).write_json_atomic("CURRENT.json", {"version": version, "path": version})
    event(logger, "finished", step=trainer.update, export=export.uri)


def _prepare(folder: Storage, fresh: bool) -> None:
    """Remove what interrupted writes left, and with ``fresh`` the whole earlier run."""
    if fresh:
        folder.remove("")
    checkpoint.remove_leftovers(folder.child("checkpoints"))


def _announce(run: Run, trainer: Trainer, dataset: ShardDataset) -> None:
    if not run.world.is_main:
        return
    plan = dataset.plan(trainer.position.epoch)
    event(
        logger,
        "start",
        folder=run.folder.uri,
        release=run.release.storage.uri,
        manifest=run.release.manifest_sha256[:16],
        samples=run.release.num_samples,
        labels=run.release.num_labels,
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        processes=run.world.size,
        device=run.world.device,
    )
    event(
        logger,
        "resume" if trainer.update else "begin",
        step=f"{trainer.update}/{run.total}",
        epoch=trainer.position.epoch,
        step_in_epoch=f"{trainer.position.step}/{plan.num_steps}",
    )

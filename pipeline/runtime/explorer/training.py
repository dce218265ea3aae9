"""Training curves and the table of evaluation results, where a run has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.files.storage import Storage
from pipeline.report import charts
from pipeline.report.blocks import Block, Column, Value, View, chart, facts, table
from pipeline.runtime.explorer.sampling import Reading
from pipeline.runtime.manifest import POINTER

_CURVES = (
    ("loss", "Loss", ("loss", "excess_loss")),
    ("rate", "Learning rate", ("lr",)),
    ("norm", "Norm of the gradient", ("grad_norm",)),
    ("speed", "Images a second", ("images_per_second",)),
)
_SPEEDS = (
    ("training", "training, images a second"),
    ("inference", "inference, images a second"),
    ("latency_median_ms", "latency of one image, median, ms"),
    ("latency_p95_ms", "latency of one image, 95 % of them, ms"),
)
_ABOUT = ("architecture", "updates", "images_shown", "weights_sha256", "holdout_share")


def training(reading: Reading) -> View | None:
    """Curves of the last pretraining and its evaluation; None where there is neither."""
    storage = reading.catalog.storage
    blocks = [*_curves(storage), *_evaluation(storage)]
    if not blocks:
        return None
    return View("training", "Training", "Pretraining on the release, and what it learned.", blocks)


def _current(storage: Storage, home: str, name: str) -> str | None:
    """A file of the version that a pointer names; None where there is none."""
    if not storage.exists(f"{home}/{POINTER}"):
        return None
    path = f"{home}/{storage.read_json(f'{home}/{POINTER}')['path']}/{name}"
    return path if storage.exists(path) else None


def _curves(storage: Storage) -> Iterator[Block]:
    path = _current(storage, "pretrain", "log.jsonl")
    if path is None:
        return
    lines = [json.loads(line) for line in storage.read_bytes(path).decode().splitlines()]
    for block, title, names in _CURVES:
        series = {name: _points(lines, name) for name in names if any(name in x for x in lines)}
        if series:
            option = charts.curves(series, "update", title.lower())
            yield chart(block, title, f"{title} by update, from {path}.", option, 280)


def _points(lines: list[dict[str, Value]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates and values of a quantity, in the order of the log."""
    pairs = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    points = np.array(pairs, np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _evaluation(storage: Storage) -> Iterator[Block]:
    path = _current(storage, "evaluate", "results.json")
    if path is None:
        return
    results: Mapping[str, Value] = storage.read_json(path)
    about = results.get("about", {})
    pairs = [(name.replace("_", " "), str(about[name])) for name in _ABOUT if name in about]
    yield facts("evaluated", "Evaluated model", " ".join(results.get("notes", [])), pairs)
    columns = [
        Column("task", is_choice=True),
        Column("metric"),
        Column("system", is_choice=True),
        Column("value", "real"),
        Column("95 % from", "real"),
        Column("to", "real"),
        Column("queries", "count"),
    ]
    fields = ("task", "metric", "system", "value", "low", "high", "num")
    rows = [[row.get(name) for name in fields] for row in results["rows"]]
    text = f"Figures with intervals from resampled queries, from {path}."
    yield table("results", "Evaluation", text, columns, rows)
    yield from _speed(storage)


def _speed(storage: Storage) -> Iterator[Block]:
    path = _current(storage, "evaluate", "speed.json")
    if path is None:
        return
    found: Mapping[str, Value] = storage.read_json(path)
    text = f"Measured on {found['device']}, warm-up excluded; differs from run to run. From {path}."
    pairs = [(title, f"{found[name]:,.2f}") for name, title in _SPEEDS]
    where = [(name, str(found[name])) for name in ("device", "threads", "batch")]
    yield facts("throughput", "Throughput and latency", text, [*pairs, *where])

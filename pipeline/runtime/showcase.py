"""The whole way on one machine: chain, short pretraining, report, and a summary to read.

Every part is skipped when nothing it depends on has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage, open_storage
from pipeline.report.funnel import COLUMNS, FunnelStep, funnel_rows
from pipeline.runtime.catalog import Catalog, open_catalog
from pipeline.runtime.errors import UserError
from pipeline.runtime.manifest import POINTER

NUM_PROCESSES = 2
"""Processes of the pretraining: the gloo run that a GPU machine does with NCCL."""


def finish(config: RunConfig, options: argparse.Namespace) -> None:
    """What follows the chain: pretraining on the release, the report, the summary."""
    storage = open_storage(config.root)
    started = time.monotonic()
    catalog = open_catalog(config.root)
    version = _version(config, catalog)
    if _done(storage) != version or options.force:
        _pretrain(options, config)
        _report(config)
        storage.write_json_atomic("_showcase.json", {"version": version})
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 110)
    _summary(console, catalog, storage, time.monotonic() - started)


def _version(config: RunConfig, catalog: Catalog) -> str:
    """Identity of all that pretraining and report are made from."""
    stages = sorted((name, m.version, m.layout) for name, m in catalog.stages.items())
    parts = [stages, config.train.fingerprint(), config.report.fingerprint()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _done(storage: Storage) -> str | None:
    if not (storage.exists("_showcase.json") and storage.exists("report/index.html")):
        return None
    done: str = storage.read_json("_showcase.json")["version"]
    return done


def _pretrain(options: argparse.Namespace, config: RunConfig) -> None:
    """Train with torchrun in processes of its own; it shows its own progress.

    Raises:
        UserError: the trainer failed; its own message stands above.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={NUM_PROCESSES}", "jobs/pretrain.py"]
    command += ["--preset", options.preset, "--root", config.root]
    for override in options.overrides:
        command += ["--set", override]
    home = str(Path(__file__).parents[2])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": home}
    outcome = subprocess.run(command, env=environment, cwd=home, check=False)
    if outcome.returncode != 0:
        raise UserError(
            f"Pretraining ended with exit code {outcome.returncode}; its message stands above. "
            "Run it alone with `make pretrain`."
        )


def _report(config: RunConfig) -> None:
    # matplotlib is slow to import, and a current showcase needs none of it.
    from pipeline.runtime.report import write_report

    write_report(config)


def _summary(console: Console, catalog: Catalog, storage: Storage, seconds: float) -> None:
    from pipeline.runtime.funnel import funnel_steps

    console.print()
    console.print(_grid(funnel_steps(catalog)))
    release = catalog.stages["write_release"]
    shards = release.tables["written_shards"]
    megabytes = shards.totals["num_bytes"] / 1e6
    place = f"{storage.uri}/{shards.path.rsplit('/', 1)[0]}"
    console.print(f"release   {place}")
    console.print(
        f"          {shards.totals['num_samples']:,} samples in {shards.num_rows} shards, "
        f"{megabytes:.1f} MB"
    )
    losses = _losses(storage)
    if losses:
        console.print(f"training  loss {losses[0]:.3f} -> {losses[-1]:.3f}: {storage.uri}/pretrain")
    console.print(f"report    {storage.uri}/report/index.html")


def _grid(steps: Sequence[FunnelStep]) -> Grid:
    grid = Grid(title="Funnel", title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(COLUMNS):
        grid.add_column(name, justify="left" if place in (0, 2) else "right")
    for row in funnel_rows(steps):
        grid.add_row(*row)
    return grid


def _losses(storage: Storage) -> list[float]:
    """Loss of each logged window, in order."""
    pointer = f"pretrain/{POINTER}"
    if not storage.exists(pointer):
        return []
    path = f"pretrain/{storage.read_json(pointer)['path']}/log.jsonl"
    lines = [json.loads(line) for line in storage.read_bytes(path).decode().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]

"""Command line of pretraining: train on a release, or tell what that would take."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from pipeline.config.load import load_config, preset_names, recipe_names
from pipeline.config.run import RunConfig
from pipeline.files.storage import open_storage
from pipeline.runtime.logs import setup_logging
from pipeline.train.dry_run import (
    PAPER_IMAGES,
    PAPER_LABELS,
    Cluster,
    Corpus,
    corpus_of,
    dry_run,
    text_of,
)
from pipeline.train.loop import RESUMABLE_EXIT_CODE, pretrain
from pipeline.train.release import open_release

STATED_IMAGE_BYTES = 100_000
"""Mean size of a stored image where no release says one: a JPEG of some 400 x 400 pixels."""


def parse(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of jobs/pretrain.py."""
    parser = argparse.ArgumentParser(description=doc)
    presets, recipes = ", ".join(preset_names()), ", ".join(recipe_names())
    parser.add_argument("--preset", default="demo", help=f"{presets}, or a .yaml file")
    parser.add_argument("--recipe", help=f"in place of the preset's: {recipes}, or a .yaml file")
    parser.add_argument("--root", help="where tables and releases are; runs go to ROOT/pretrain")
    parser.add_argument("--release", help="release folder, ROOT/release by default")
    parser.add_argument("--set", action="append", default=[], metavar="train.x=y")
    parser.add_argument("--fresh", action="store_true", help="drop this run's checkpoints first")
    dry = parser.add_argument_group("dry run: what a run on any number of devices would take")
    dry.add_argument("--dry-run", action="store_true", help="print it, and train nothing")
    dry.add_argument("--world-size", type=int, default=64, help="devices, 64 by default")
    dry.add_argument("--devices-per-node", type=int, default=8, help="of a machine, 8 by default")
    dry.add_argument("--images", type=float, help="shown an epoch, in place of a release's")
    dry.add_argument("--labels", type=int, default=PAPER_LABELS, help="with --images")
    dry.add_argument("--image-bytes", type=float, default=STATED_IMAGE_BYTES, help="with --images")
    dry.add_argument(
        "--images-per-second",
        type=float,
        action="append",
        default=[],
        help="training rate of one device to plan with; may be given several times",
    )
    return parser.parse_args(argv)


def run_pretraining(options: argparse.Namespace) -> None:
    """Train until the end, or until SIGTERM; resumes by itself from the newest checkpoint.

    Exits with RESUMABLE_EXIT_CODE when it was stopped and can go on.
    """
    setup_logging(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    config = load_config(options.preset, options.set, options.root, options.recipe)
    release = options.release or f"{config.root}/release"
    if options.dry_run:
        sys.stdout.write(_told(config, options, release))
        return
    outcome = pretrain(config.train, release, f"{config.root}/pretrain", options.fresh)
    if not outcome.finished:
        sys.exit(RESUMABLE_EXIT_CODE)


def _told(config: RunConfig, options: argparse.Namespace, release: str) -> str:
    rates = tuple(options.images_per_second)
    cluster = Cluster(options.world_size, options.devices_per_node, rates)
    return text_of(dry_run(config.train, _corpus(config, options, release), cluster))


def _corpus(config: RunConfig, options: argparse.Namespace, release: str) -> Corpus:
    """The release that is named, or lies below a local root; else what is stated, or the paper's.

    A store that only a preset names is not asked: a dry run needs no network.
    """
    if options.images is None and (options.release or _is_there(release)):
        return corpus_of(open_release(release), config.train, options.world_size)
    images = int(options.images or PAPER_IMAGES)
    return Corpus(
        source="as stated" if options.images else "the paper's size",
        images=images,
        labels=options.labels,
        shards=-(-images // config.assign_shards.samples_per_shard),
        image_bytes=options.image_bytes,
    )


def _is_there(release: str) -> bool:
    if "://" in release:
        return False
    storage = open_storage(release)
    return any(storage.exists(name) for name in ("CURRENT.json", "manifest.json"))

"""The configuration that an import leaves: ``imported.yaml``, and the user's ``mine.yaml``."""

from __future__ import annotations

import math
from typing import Any

import yaml

from pipeline.config.load import preset_names
from pipeline.files.storage import Storage, open_storage

SMALL_IMAGES = 100_000
"""Up to here the demo's sizes are sensible, above it the paper's (A)."""
IMAGES_PER_BUCKET = 325_000
"""As the paper's preset: 1.329 billion images in 4,096 buckets."""
_DEMO_ONLY = ("image_interest_seeds", "validation_images", "blocked_images")


def preset_for(num_images: int) -> str:
    """Packaged preset whose sizes fit a number of images."""
    return "demo" if num_images <= SMALL_IMAGES else "paper"


def write_configuration(
    root: Storage, source: Storage, folder: str, manifest: dict[str, Any], preset: str
) -> str:
    """Write ``imported.yaml``, and ``mine.yaml`` on top of it where there is none yet.

    They stand in the root, or in the current folder where the root is an object store: a
    configuration is read from this machine.

    Args:
        root: of the run.
        source: names the dataset.
        folder: of the tables below the root.
        manifest: of the import.
        preset: what is extended.

    Returns:
        path of ``mine.yaml``.
    """
    place = root if root.is_local else open_storage(".")
    values = _values(root, source, folder, manifest, preset)
    head = "# Written by `make import`, and again by the next one: change mine.yaml beside it.\n"
    text = head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    place.write_bytes_atomic("imported.yaml", text.encode())
    if not place.exists("mine.yaml"):
        own = (
            "# Yours: what stands here wins over imported.yaml. Sections and fields: "
            "pipeline/config/run.py.\n"
        ) + yaml.safe_dump({"extends": place.path("imported.yaml")})
        place.write_bytes_atomic("mine.yaml", own.encode())
    return place.path("mine.yaml")


def _values(
    root: Storage, source: Storage, folder: str, manifest: dict[str, Any], preset: str
) -> dict[str, Any]:
    base = root.path(folder) if root.is_local else f"{root.uri}/{folder}"
    names = ["images", "terms"]
    names += ["annotations_long"] if manifest["annotations"] == "keywords" else []
    inputs: dict[str, Any] = {name: {"path": f"{base}/{name}"} for name in names}
    inputs |= dict.fromkeys(_DEMO_ONLY)
    title = source.root.rstrip("/").rpartition("/")[2]
    values: dict[str, Any] = {
        "extends": preset,
        "root": root.uri,
        "inputs": inputs,
        "write_release": {
            "title": title if title.isprintable() and title else "Imported images",
            "description": "",
            "date_published": None,
        },
    }
    if preset == "paper":
        buckets = max(1, math.ceil(manifest["counts"]["images"] / IMAGES_PER_BUCKET))
        values["runtime"] = {"num_buckets": buckets, "shuffle_partitions": max(4, buckets)}
        values["cluster_terms"] = {"num_clusters": None}
    assert preset in preset_names() or preset.endswith((".yaml", ".yml")), preset
    return values

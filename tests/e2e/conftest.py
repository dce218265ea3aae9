"""One planted world and a run of the whole chain over it, for every test of this folder.

The world has 3,000 images; `PLANTED_IMAGES=20000 pytest tests/e2e` is the size of the claim.
"""

from __future__ import annotations

import json
import os
import sys

import pytest
from planted_run import WorldRun, run_world

from pipeline.demo.planted_world import PlantedWorld, generate
from pipeline.demo.planted_writer import WorldOptions
from pipeline.runtime.world_check import check_world

NUM_IMAGES = int(os.environ.get("PLANTED_IMAGES", "3000"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> PlantedWorld:
    out = tmp_path_factory.mktemp("world")
    return generate(out, NUM_IMAGES, seed=0, options=WorldOptions(annotations="both"))


@pytest.fixture(scope="session")
def run(spark, world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> WorldRun:
    """The chain on the world, with 2 partitions; `-s` shows its figures."""
    config = run_world(spark, world, tmp_path_factory.mktemp("two"), 2)
    figures = check_world(world, config)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return WorldRun(world, config, figures)

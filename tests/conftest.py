"""What every test may ask for. The session is opened by the first test that wants it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Two cores: threads of one library must not fight with those of another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


SHARED = ("tests/e2e", "tests/faults")
"""Folders whose tests share what is long in the making: one process of `pytest -n` runs all of one.
They begin first, so that none runs alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Spark, so that `-m "not spark"` needs no Java; tell what goes together."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) not in SHARED)


def _group(item: pytest.Item) -> str:
    file = item.path.relative_to(REPOSITORY).as_posix()
    return next((folder for folder in SHARED if file.startswith(folder)), file)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One lazy session: local[2], 4 shuffle partitions, UI off, scratch under tmp_path."""
    from pipeline.config.runtime import RuntimeParams
    from pipeline.runtime.session import open_session

    scratch = tmp_path_factory.mktemp("spark")
    settings = RuntimeParams(
        cores=2,
        driver_memory="2g",
        java_options="-XX:+UseParallelGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
        num_buckets=2,
        shuffle_partitions=4,
        arrow_batch_rows=1000,
    )
    session = open_session("tests", settings, scratch)
    # Workers find the literal rows that test modules import.
    session.sparkContext.addPyFile(str(REPOSITORY / "tests" / "label_rows.py"))
    # Tables of a handful of rows: what helps big plans only costs time here.
    session.conf.set("spark.sql.adaptive.enabled", "false")
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    yield session
    session.stop()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch, as in a Spark task: on several, sums may differ in their last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Folder of pyproject.toml."""
    return REPOSITORY

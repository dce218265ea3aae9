"""When rows of an earlier run may be taken over, and what is said where they may not. No Spark."""

import copy
import dataclasses
import shutil

import pyarrow as pa
import pytest
from given import publish_table, publish_version
from near_duplicate_rows import packed, print_row

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.files.storage import open_storage
from pipeline.runtime.earlier import StagePast
from pipeline.runtime.manifest import StageManifest, folder_of, publish, stage_version
from pipeline.runtime.planning import PlannedStage
from pipeline.runtime.writer import write_part
from pipeline.stages.find_near_duplicates import STAGE
from schemas import ALL

PARAMS = NearDuplicateParams(verify=VerifyParams(enabled=False))
NAMES = ("image_fingerprints", "image_embeddings", "embedding_cells")


class Root:
    """A root on which `find_near_duplicates` was published over two images."""

    def __init__(self, folder):
        self.storage = open_storage(str(folder))
        self.layout, self.free = 2, ()
        self.given = self.publish(2)
        self.first = self.plan()
        self.finish(self.first)
        self.given = self.publish(3)

    def publish(self, count):
        rows = {
            "image_fingerprints": [print_row(f"i{n}", f"d{n}") for n in range(count)],
            "image_embeddings": [
                {"image_id": f"i{n}", "embedding": packed([1.0, n])} for n in range(count)
            ],
            "embedding_cells": [{"cell_id": 0, "centroid": packed([1.0, 0.0])}],
        }
        return {
            name: publish_version(self.storage, ALL[name], rows[name], self.layout)
            for name in NAMES
        }

    def plan(self, stage=STAGE, params=PARAMS):
        inputs = {name: manifest.version for name, manifest in self.given.items()}
        version = stage_version(stage, params.model_dump(mode="json"), inputs)
        return PlannedStage(stage, params, inputs, version, None)

    def finish(self, planned):
        """Publish empty outputs of a plan."""
        folder = folder_of(STAGE, planned.version, self.layout)
        tables = {}
        for table in STAGE.outputs:
            parts = [
                write_part(self.storage, f"{folder}/{table.name}", table, b, 2, table.empty())
                for b in range(2)
            ]
            made = self.given["image_fingerprints"].tables["image_fingerprints"]
            update = {"name": table.name, "path": f"{folder}/{table.name}", "files": parts}
            tables[table.name] = made.model_copy(update=update)
        manifest = StageManifest(
            stage=STAGE.name, version=planned.version, layout=self.layout,
            code_version=STAGE.version, params=planned.params.model_dump(mode="json"),
            inputs=dict(planned.inputs), tables=tables, counts={}, ledger=[], seconds=0,
            finished="", commit="",
        )  # fmt: skip
        publish(self.storage, STAGE, manifest)

    def past(self, planned, layout=None):
        inputs = {name: manifest.tables[name] for name, manifest in self.given.items()}
        return StagePast(None, self.storage, planned, layout or self.layout, inputs, self.given)

    def reason(self, planned, layout=None):
        found = self.past(planned, layout)._find(set(self.free))
        return found if isinstance(found, str) else ""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Root(tmp_path_factory.mktemp("made"))


@pytest.fixture
def root(tmp_path, made):
    """A copy of the root."""
    shutil.copytree(made.storage.path(""), tmp_path / "root")
    mine = copy.copy(made)
    mine.storage, mine.given = open_storage(str(tmp_path / "root")), dict(made.given)
    return mine


def test_an_earlier_run_is_found_with_what_it_read_and_wrote(root):
    assert root.reason(root.plan()) == ""
    found = root.past(root.plan()).earlier(())
    assert found.version == root.first.version
    assert found.then["image_fingerprints"].num_rows == 2
    assert found.now["image_fingerprints"].num_rows == 3
    assert set(found.outputs) == {table.name for table in STAGE.outputs}
    assert found.has_same("embedding_cells")
    assert not found.has_same("image_embeddings")


def test_a_small_input_is_the_same_by_its_rows_not_by_its_version(root):
    """Centroids that `near_duplicates.cells_version` keeps have a version of their own."""
    table, name = ALL["embedding_cells"], "embedding_cells"
    for centroid, is_same in (([1.0, 0.0], True), ([0.0, 1.0], False)):
        rows = [{"cell_id": 0, "centroid": packed(centroid)}]
        data = pa.Table.from_pylist(rows, table.arrow_schema)
        root.given[name] = publish_table(root.storage, table, data, 2, f"{int(is_same):012x}")
        assert root.past(root.plan()).earlier(()).has_same(name) == is_same


def test_how_rows_are_found_does_not_enter_the_version(root):
    never = root.plan(params=PARAMS.model_copy(update={"incremental": "never"}))
    assert never.version == root.plan().version


def test_other_code_parameters_or_layout_start_from_scratch(root):
    assert root.reason(root.first) == "the published version is the one that is made"
    newer = dataclasses.replace(STAGE, version=STAGE.version + 1)
    code = f"the earlier run is of code version {STAGE.version}"
    assert root.reason(root.plan(stage=newer)) == code
    wider = PARAMS.model_copy(update={"max_hamming": 5, "cells_version": "0" * 12})
    assert root.reason(root.plan(params=wider)) == "other parameters: cells_version, max_hamming"
    root.free = ("cells_version", "max_hamming")
    assert root.reason(root.plan(params=wider)) == ""
    assert root.reason(root.plan(), layout=3) == "the earlier run has 2 buckets, this one 3"


def test_what_was_collected_starts_from_scratch_and_is_named(root, caplog):
    home = "given_image_embeddings"
    version = root.first.inputs["image_embeddings"]
    shutil.rmtree(root.storage.path(f"{home}/{version}-00002"))
    reason = f"image_embeddings of version {version}, which the earlier run read, was collected"
    assert root.reason(root.plan()) == reason
    with caplog.at_level("INFO"):
        assert root.past(root.plan()).earlier(()) is None
    assert caplog.records[-1].fields == {"stage": "find_near_duplicates", "reason": reason}


def test_a_version_that_lost_a_file_is_not_used(root):
    folder = folder_of(STAGE, root.first.version, 2)
    root.storage.remove(f"{folder}/candidate_overflows/part-00001.parquet")
    assert root.reason(root.plan()) == "files of candidate_overflows of the earlier run are gone"
    version = root.first.inputs["image_fingerprints"]
    name = f"given_image_fingerprints/{version}-00002/image_fingerprints/part-00000.parquet"
    root.storage.remove(name)
    assert "image_fingerprints" in root.reason(root.plan())


def test_a_stage_that_never_ran_here_has_no_past(tmp_path, root):
    elsewhere = open_storage(str(tmp_path / "elsewhere"))
    past = StagePast(None, elsewhere, root.plan(), 2, {}, {})
    assert past.earlier(()) is None
    assert past._find(set()) == "the stage was never published here"


def test_a_version_that_is_not_there_is_refused_with_those_that_are(root):
    with pytest.raises(ValueError, match=f"'abc'.*found {root.first.version} with 2 buckets"):
        root.past(root.plan()).output_of("abc", "candidate_overflows")

"""The planted world of the label half is as its stages would leave it; parts of it add up."""

import pyarrow as pa
import pytest

from benchmarks.bench_label_half import ROWS, STAGES
from benchmarks.label_half_world import UNIQUE, make_world
from pipeline.files.storage import open_storage
from pipeline.runtime.checks import check_file
from pipeline.runtime.places import locate_stored
from pipeline.runtime.reader import read_table
from schemas import ALL

BUCKETED = ("images", "annotations", "image_interests", "unique_images")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(str(tmp_path_factory.mktemp("world")), 6_000, 3, 1)


def test_planted_files_keep_their_contracts(world):
    storage = open_storage(world.root)
    for name in BUCKETED:
        for file in world.tables[name].files:
            found = check_file(storage, name, file.name, ALL[name], file.bucket, 3)
            assert not found.breaches
            assert (found.num_rows, found.num_bytes) == (file.num_rows, file.num_bytes)
            assert {n: found.totals[n] for n in file.totals} == file.totals
    assert world.tables["annotations"].totals["annotations"] == world.num_annotations


def test_the_world_has_its_shares(world):
    rows = {name: world.tables[name].num_rows for name in BUCKETED}
    assert rows["images"] == rows["image_interests"] == 6_000
    assert abs(rows["unique_images"] / 6_000 - UNIQUE) < 0.03
    assert abs(world.num_annotations / 6_000 - 10) < 0.5
    terms = read_table(open_storage(world.root), world.tables["terms"], ALL["terms"]).to_pandas()
    is_alias = terms.term_id != terms.canonical_term_id
    assert 0.09 < is_alias.mean() < 0.11
    assert not is_alias[terms.canonical_term_id].any()
    assert {"en", "de"} == set(terms.language)


def test_images_are_stored_so_that_places_can_be_told(world):
    """`assign_shards` asks for them, and refuses pages that `write_part` would not write."""
    name = f"images/{world.tables['images'].files[0].name}"
    with open_storage(world.root).open_read(name) as handle:
        batches = list(locate_stored(handle, name, ["image_id"], "bytes", "num_bytes"))
    assert sum(batch.num_rows for batch in batches) == world.tables["images"].files[0].num_rows


def test_every_stage_has_rows_that_are_still_there():
    gone = set()
    for stage, dropped in STAGES.items():
        assert ROWS[stage] not in gone
        gone |= set(dropped)


def test_identifiers_are_hex_of_one_width(world):
    ids = read_table(open_storage(world.root), world.tables["images"], ALL["images"], ["image_id"])
    texts = ids["image_id"].to_pylist()
    assert len(set(texts)) == 6_000
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in texts)
    assert pa.types.is_string(ids["image_id"].type)

"""Arms over the planted world: shared stages, the same images, the same queries, verdicts."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_run import WorldRun, shuffle_partitions

from pipeline.config.load import with_overrides
from pipeline.files.storage import open_storage
from pipeline.runtime.ablations.command import compare_arms
from pipeline.runtime.ablations.releases import image_stems
from pipeline.runtime.manifest import read_current
from pipeline.train.holdout import is_held_out
from pipeline.train.release import open_release

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.spark, pytest.mark.timeout(1800)]

SHARE = 0.3
BASE = [
    "resample_images.materialised=false",
    f"train.data.holdout_share={SHARE}",
    "train.model={name: vit_tiny_patch16_224, image_size: 16, patch_size: 8, width: 32, depth: 1,"
    " heads: 1}",
    "train.data.global_batch=16",
    "train.data.virtual_ranks=2",
    "train.data.lanes=1",
    "train.schedule={warmup_steps: 1, length: steps, steps: 3}",
    "train.run={device: cpu, workers: 0, threads: 1, tensorboard: false}",
]
UNRESTRICTED = "label_images.restrict_to_interests=false"
ARMS = [
    {"name": "dictionary", "about": "all", "overrides": [UNRESTRICTED]},
    {"name": "restriction", "about": "less", "overrides": []},
    {"name": "again", "about": "the same", "overrides": []},
    {"name": "half", "about": "half", "overrides": ["train.data.subset_share=0.5"]},
]
FINDINGS = [
    {"name": "restriction", "claim": "c", "better": ["restriction"], "worse": ["dictionary"]},
    {"name": "nothing", "claim": "c", "better": ["again"], "worse": ["restriction"]},
    {
        "name": "gain",
        "claim": "c",
        "better": ["restriction", "half"],
        "worse": ["half", "dictionary"],
    },
]


@pytest.fixture(scope="module")
def compared(run: WorldRun, spark, tmp_path_factory):
    """The ablations' record, twice, and the configuration."""
    release = open_release(str(run.release))
    rows = [
        (record["image_id"], f"label {min(record['label_ids'])}")
        for record in sample_records(release)
        if record["copy_index"] == 0
    ]
    tags = tmp_path_factory.mktemp("tags") / "tags.parquet"
    pq.write_table(pa.table({"image_id": [r[0] for r in rows], "kind": [r[1] for r in rows]}), tags)
    ablations = {
        "base": BASE,
        "arms": ARMS,
        "findings": FINDINGS,
        "seeds": [0, 1],
        "tags": str(tags),
        "tag_column": "kind",
        "processes": 1,
        "evaluate": {
            "few_shot": {"shots": [1], "l2": [1.0], "seeds": [0]},
            "linear_probe": {"inverse_penalties": [0.1], "max_iterations": 5},
        },
    }
    config = with_overrides(run.config, [f"ablations={json.dumps(ablations)}"])
    storage = open_storage(config.root)
    with shuffle_partitions(spark, 2):
        found = compare_arms(config, storage, lambda: nullcontext(spark))

    def refuse():
        raise AssertionError("a stage was to run")

    before = sorted(p.stat().st_mtime_ns for p in Path(config.root).rglob("model.safetensors"))
    again = compare_arms(config, storage, refuse)
    after = sorted(p.stat().st_mtime_ns for p in Path(config.root).rglob("model.safetensors"))
    assert before == after
    assert len(before) == 6  # three different arms, two seeds
    return found, again, config


def sample_records(release):
    """JSON member of every sample."""
    import tarfile

    for shard in range(len(release.shards)):
        with tarfile.open(release.storage.path(release.shards.name(shard))) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield json.load(tar.extractfile(member))


def test_the_second_call_finds_everything_and_says_the_same(compared):
    (record, folder), again, config = compared
    assert again == (record, folder)
    home = Path(config.root) / "ablations"
    assert json.loads((home / "CURRENT.json").read_text())["path"] == folder.rpartition("/")[2]
    assert json.loads((Path(config.root) / folder / "results.json").read_text()) == record


def test_no_pointer_of_the_run_moves(run: WorldRun, compared):
    release = read_current(open_storage(run.config.root), "release")
    assert release is not None
    assert release.version == run.release.name.partition("-")[0]


def test_arms_have_the_same_images_and_other_labels(compared):
    (record, _), _, config = compared
    arms = {arm["name"]: arm for arm in record["arms"]}
    assert arms["dictionary"]["num_own_images"] > arms["restriction"]["num_own_images"]
    assert len({arm["num_images"] for arm in record["arms"]}) == 1
    assert arms["dictionary"]["labels_an_image"] > arms["restriction"]["labels_an_image"]
    assert arms["half"]["num_trained_images"] == pytest.approx(
        arms["restriction"]["num_trained_images"] / 2, abs=1
    )
    runs = [arm["runs"] for arm in record["arms"]]
    assert runs[1] == runs[2]
    # Copies of an image may keep another one where labels differ, so either may lack some.
    root = Path(config.root)
    homes = {p.name: p for p in (root / "ablations" / "releases").glob("*")}
    used = [image_stems(open_release(str(home))) for home in homes.values()]
    assert used
    assert all(stems == used[0] for stems in used)
    assert len(used[0]) == record["arms"][0]["num_images"]
    for name in homes:
        assert image_stems(open_release(str(root / "release" / name))) > used[0]


def test_queries_are_tagged_and_held_out_of_every_arm(compared):
    (record, _), _, config = compared
    tables = list((Path(config.root) / "ablations" / "queries").glob("*.parquet"))
    assert len(tables) == 1
    table = pq.read_table(tables[0])
    assert table.num_rows >= 20
    assert is_held_out([f"{key}-000" for key in table["image_id"].to_pylist()], SHARE).all()
    assert 0 < record["num_queries"] <= table.num_rows


def test_equal_arms_differ_by_nothing_and_gains_add_up(compared):
    (record, _), _, _ = compared
    found = {f["name"]: f["by_metric"][record["metric"]] for f in record["findings"]}
    assert (found["nothing"]["value"], found["nothing"]["verdict"]) == (0.0, "undecided")
    arms = {arm["name"]: arm["figures"][record["metric"]]["value"] for arm in record["arms"]}
    difference = arms["restriction"] - arms["dictionary"]
    assert found["restriction"]["value"] == pytest.approx(difference)
    assert found["gain"]["value"] == pytest.approx(difference)
    assert found["gain"]["gain"] is None

"""The release: readable by others, the same bytes for any layout, nothing half done."""

import hashlib
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from given import run_stage
from release_given import verify_here

from pipeline.config.dataset import WriteReleaseParams
from pipeline.files.fetch import FetchPolicy
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.stages.shard_files import PlannedSample, ShardTask
from pipeline.stages.write_release import STAGE
from pipeline.train.release import open_release
from schemas.dataset import (
    LABEL_MAP,
    RESAMPLING_REPORT,
    SAMPLING_POLICY,
    SHARD_ASSIGNMENTS,
    SHARD_INDEX,
    SHARD_PLAN,
)
from schemas.images import VALIDATION_CERTIFICATE

NUM_SHARDS, PER_SHARD = 4, 5
FORMATS = ("jpeg", "png", "webp")


def content(i):
    """Bytes that nobody decodes, up to a MiB, so that sinks flush in between."""
    return (b"image %d " % i) * (1 + i * 8000 % 60_000)


def image_id(i):
    return f"dir/im.ä{i}"


def tables(root, folder=None):
    """16 images in 20 samples, 4 shards; images 0-3 have two copies, in different shards.

    Args:
        root: where a file gets the bytes of the other images.
        folder: where even images are files; all images are in the one file where None.
    """
    samples, places = [], []
    root.mkdir(parents=True, exist_ok=True)
    with (root / "images.bin").open("wb") as stored:
        for i in range(16):
            if folder is not None and i % 2 == 0:
                path = folder / f"{i}.bin"
                path.write_bytes(content(i))
                places.append({"uri": f"file://{path}" if i % 4 else str(path)})
            else:
                places.append({"part": "images.bin", "offset": stored.tell()})
                stored.write(content(i))
            samples += [(i, copy) for copy in range(2 if i < 4 else 1)]
    rows = [
        dict.fromkeys(SHARD_ASSIGNMENTS.column_names)
        | {
            "shard_id": place % NUM_SHARDS,
            "position": place // NUM_SHARDS,
            "key": sample_key(image_id(i), copy),
            "image_id": image_id(i),
            "copy_index": copy,
            "label_ids": [0, 1 + i % 2],
            "weight": 0.25 + i,
            "sha256": hashlib.sha256(content(i)).hexdigest(),
            "format": FORMATS[i % 3],
            "num_bytes": len(content(i)),
            "licence": "CC0 | a" if i % 3 else None,
            "source": f"s{i % 2}",
        }
        | places[i]
        for place, (i, copy) in enumerate(samples)
    ]
    labels = [("tree", 16, 20), ("blue jay", 8, 10), ("ärger", 8, 10)]
    return {
        SHARD_ASSIGNMENTS: rows,
        LABEL_MAP: [
            {"label_id": c, "cluster_id": 7 + c, "name": n, "l1_interest": "art", "num_images": b}
            for c, (n, b, _) in enumerate(labels)
        ],
        RESAMPLING_REPORT: [
            {"label_id": c, "num_before": b, "expected_after": a + 0.5, "realised_after": a}
            for c, (_, b, a) in enumerate(labels)
        ],
        SAMPLING_POLICY: [
            {"policy": "inverse_sqrt", "materialised": True, "threshold": 0.1, "cap": None,
             "max_copies": 20, "seed": 3, "num_images": 16}
        ],
        SHARD_PLAN: [
            {"seed": 9, "samples_per_shard": 5, "num_shards": NUM_SHARDS, "num_samples": 20}
        ],
        VALIDATION_CERTIFICATE: [
            {"tier": "exact", "num_images": 16, "num_validation_images": 2,
             "num_pairs_checked": 32.0, "num_removed": 0, "limit": 0.0, "nearest_remaining": None}
        ],
    }  # fmt: skip


def write(spark, root, given, num_buckets=2):
    section = WriteReleaseParams(read_retries=0, read_threads=3)
    storage, manifest, got = run_stage(
        spark, root, STAGE, given, num_buckets, write_release=section
    )
    pointer = storage.read_json("release/CURRENT.json")
    return root / "release" / pointer["path"], manifest, got


def published(folder):
    """Relative name -> bytes of every file that belongs to the release itself."""
    kinds = ("*.json", "*.md", "SHA256SUMS", "shards/*")
    names = [name for kind in kinds for name in folder.glob(kind)]
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(names)
        if p.name not in ("stage.json", "lineage.json")  # of the root, of the inputs' bytes
    }


@pytest.fixture(scope="module")
def release(spark, tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    return write(spark, root, tables(root))


def test_samples_are_what_was_planned(release, tmp_path):
    folder, _, _ = release
    names = ["tree", "blue jay", "ärger"]
    by_place = {(r["shard_id"], r["position"]): r for r in tables(tmp_path)[SHARD_ASSIGNMENTS]}
    for shard in range(NUM_SHARDS):
        raw = (folder / f"shards/shard-{shard:06d}.tar").read_bytes()
        index = pq.read_table(folder / f"shards/shard-{shard:06d}.index.parquet")
        assert index.schema.equals(SHARD_INDEX.arrow_schema)
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar]
        for position in range(PER_SHARD):
            row = by_place[shard, position]
            i = int(row["image_id"].split("ä")[1])
            image, text, record = members[3 * position : 3 * position + 3]
            suffix = ("jpg", "png", "webp")[i % 3]
            assert image == (f"{row['key']}.{suffix}", content(i))
            labels = [names[c] for c in row["label_ids"]]
            assert text == (f"{row['key']}.txt", "".join(f"{n}\n" for n in labels).encode())
            assert json.loads(record[1]) == {
                "copy_index": row["copy_index"],
                "image_id": row["image_id"],
                "label_ids": row["label_ids"],
                "label_names": labels,
                "licence": "CC0 | a" if i % 3 else None,
                "sha256": row["sha256"],
                "source": f"s{i % 2}",
            }
            line = index.slice(position, 1).to_pylist()[0]
            assert (line["key"], line["suffix"]) == (row["key"], suffix)
            assert raw[line["offset"] : line["offset"] + line["size"]] == content(i)
            assert (line["label_ids"], line["weight"]) == (row["label_ids"], row["weight"])


def test_manifest_and_side_files(release):
    folder, _, got = release
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for shard in manifest["shards"]:
        for name, digest in (("name", "sha256"), ("index", "index_sha256")):
            raw = (folder / shard[name]).read_bytes()
            assert hashlib.sha256(raw).hexdigest() == shard[digest]
        assert shard["num_bytes"] == (folder / shard["name"]).stat().st_size
    files = {f["name"]: f["sha256"] for f in manifest["files"]}
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    assert found == files
    assert sorted(files) == [
        "LICENCES.md", "README.md", "SHA256SUMS", "certificate.json", "config.json",
        "croissant.json", "funnel.json", "label_map.json", "statistics.json",
    ]  # fmt: skip
    del manifest["shards"], manifest["files"]
    assert manifest == {
        "format": 1,
        "num_samples": 20,
        "num_images": 16,
        "num_labels": 3,
        "label_map_sha256": files["label_map.json"],
        "sampling": {"policy": "inverse_sqrt", "materialised": True},
        "seed": 9,
    }
    statistics = json.loads((folder / "statistics.json").read_bytes())
    assert statistics["labels_per_image"][0] | {"num_bytes": 0} == {
        "value": 2, "num_images": 16, "num_samples": 20, "num_bytes": 0
    }  # fmt: skip
    assert statistics["labels"][1] == {
        "label_id": 1,
        "name": "blue jay",
        "num_images_before_resampling": 8,
        "num_samples_expected": 10.5,
        "num_samples": 10,
    }
    assert "| (unknown) | 6 | 8 |" in (folder / "LICENCES.md").read_text()
    assert "| CC0 \\| a | 10 | 12 |" in (folder / "LICENCES.md").read_text()
    assert [row["shard_id"] for row in got["written_shards"]] == [0, 1, 2, 3]


def test_it_says_which_stages_led_to_it_and_verifies(release, tmp_path):
    folder, manifest, _ = release
    stages = json.loads((folder / "config.json").read_bytes())["stages"]
    versions = json.loads((folder / "lineage.json").read_bytes())["stages"]
    assert [s["stage"] for s in stages] == [s["stage"] for s in versions]
    assert [s["stage"] for s in stages] == ["given"] * len(tables(tmp_path)) + ["write_release"]
    assert stages[-1]["code_version"] == manifest.code_version == STAGE.version
    assert stages[-1]["params"] == manifest.params
    assert (versions[-1]["version"], versions[-1]["inputs"]) == (manifest.version, manifest.inputs)
    steps = json.loads((folder / "funnel.json").read_bytes())["steps"]
    assert [(s["unit"], s["rows_out"], s["dropped"]) for s in steps] == [("samples", 20, {})]
    assert verify_here(open_storage(str(folder))).told == []


def test_trainer_and_webdataset_read_it(release, tmp_path):
    folder, _, _ = release
    opened = open_release(str(folder.parent))
    assert (opened.num_samples, opened.policy, opened.num_labels) == (20, "inverse_sqrt", 3)
    index = opened.read_index(2)
    assert opened.read_image(2, index.member(0)) == content(1)
    import webdataset as wds

    shards = [str(folder / shard.name) for shard in opened.shards]
    keys = [s["__key__"] for s in wds.WebDataset(shards, shardshuffle=False)]
    assert sorted(keys) == sorted(r["key"] for r in tables(tmp_path)[SHARD_ASSIGNMENTS])


def test_other_layout_and_images_in_files_give_the_same_bytes(spark, tmp_path, release):
    images = tmp_path / "images"
    images.mkdir()
    folder, _, _ = write(spark, tmp_path / "root", tables(tmp_path / "root", images), num_buckets=7)
    assert published(folder) == published(release[0])
    assert len(published(folder)) == 10 + 2 * NUM_SHARDS


def test_failed_run_names_the_keys_and_the_next_one_writes_what_is_missing(
    spark, tmp_path, release
):
    images, root = tmp_path / "images", tmp_path / "root"
    images.mkdir()
    given = tables(root, images)
    (images / "6.bin").write_bytes(b"other")
    (images / "10.bin").unlink()
    with pytest.raises(ValueError, match="samples of 1 shards cannot be written") as error:
        write(spark, root, given)
    for i, why in ((6, "sha256 d9298a10"), (10, "FileNotFoundError")):
        assert f"{sample_key(image_id(i), 0)} (image '{image_id(i)}'): {why}" in str(error.value)
    assert not (root / "release/CURRENT.json").exists()
    shards = next(root.glob("release/*/shards"))
    assert len(list(shards.iterdir())) == 2 * (NUM_SHARDS - 1)
    before = {p.name: p.stat().st_mtime_ns for p in shards.iterdir()}
    (images / "6.bin").write_bytes(content(6))
    (images / "10.bin").write_bytes(content(10))
    next(p for p in shards.glob("*.tar") if "000000" in p.name).unlink()
    folder, _, _ = write(spark, root, given)
    assert published(folder) == published(release[0])
    after = {p.name: p.stat().st_mtime_ns for p in shards.iterdir()}
    kept = [name for name in before if before[name] == after[name]]
    assert len(kept) == 2 * (NUM_SHARDS - 2)


def batches_of(given, shards, kill_after=None):
    rows = [row for row in given[SHARD_ASSIGNMENTS] if row["shard_id"] in shards]
    rows.sort(key=lambda r: (r["shard_id"], r["position"]))
    for n, row in enumerate(rows):
        if n == kill_after:
            raise KeyboardInterrupt
        yield pa.RecordBatch.from_pylist([{k: row[k] for k in PlannedSample._fields}])


def test_killed_writer_leaves_no_part_of_a_shard(tmp_path):
    task = ShardTask(open_storage(str(tmp_path)), "r", FetchPolicy(threads=2))
    names = ["tree", "blue jay", "ärger"]
    with pytest.raises(KeyboardInterrupt):
        list(task.write(batches_of(tables(tmp_path), {1, 2}, kill_after=8), names))
    found = {p.name for p in tmp_path.rglob("*") if p.is_file()} - {"images.bin"}
    assert found == {"shard-000001.tar", "shard-000001.index.parquet", "shard-000001.json"}
    assert task.finished_ids() == [1]
    records = list(task.write(batches_of(tables(tmp_path), {1, 2}), names))
    assert [r["num_samples"] for r in records] == [5, 5]
    assert task.finished_ids() == [1, 2]
    (tmp_path / records[0]["name"].replace("shards", "r/shards")).write_bytes(b"cut")
    assert task.finished(1) is None
    assert task.finished_ids() == [2]


def test_lost_row_is_found(tmp_path):
    task = ShardTask(open_storage(str(tmp_path)), "r", FetchPolicy(threads=2))
    batches = list(batches_of(tables(tmp_path), {1}))
    with pytest.raises(ValueError, match="found position 2, expected 1"):
        list(task.write([batches[0], *batches[2:]], ["tree", "blue jay", "ärger"]))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["images.bin"]

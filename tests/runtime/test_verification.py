"""A good release passes; every kind of damage is found and named, also where hashes were redone."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from release_given import sign, verify_here, write_small_release

from pipeline.runtime.verification import findings_lines, verify_release

TAR, INDEX = "shards/shard-000001.tar", "shards/shard-000001.index.parquet"


@pytest.fixture
def release(tmp_path):
    return write_small_release(tmp_path)


def damaged(storage, change, name=TAR, signed=True):
    storage.write_bytes_atomic(name, bytes(change(bytearray(storage.read_bytes(name)))))
    if signed:
        sign(storage, shards=(name,), files=(name,))


def repacked(raw, change):
    """The archive with another list of (TarInfo, content)."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in change(members):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def flipped_byte(storage):
    damaged(storage, lambda raw: raw[:515] + bytes([raw[515] ^ 1]) + raw[516:], signed=False)


def flipped_byte_signed(storage):
    damaged(storage, lambda raw: raw[:515] + bytes([raw[515] ^ 1]) + raw[516:])


def flipped_header(storage):
    damaged(storage, lambda raw: raw[:130] + bytes([raw[130] ^ 1]) + raw[131:])


def other_mode(storage):
    def change(members):
        members[0][0].mtime = 7
        return members

    damaged(storage, lambda raw: repacked(raw, change))


def missing_shard(storage):
    storage.remove(TAR)


def missing_index(storage):
    storage.remove(INDEX)


def index_off_by_one(storage):
    table = pq.read_table(io.BytesIO(storage.read_bytes(INDEX)))
    offsets = [table["offset"][0].as_py() + 1, *table["offset"].to_pylist()[1:]]
    place = table.column_names.index("offset")
    table = table.set_column(place, table.schema.field("offset"), pa.array(offsets, pa.int64()))
    out = io.BytesIO()
    pq.write_table(table, out)
    damaged(storage, lambda _: out.getvalue(), INDEX)


def wrong_label(storage):
    # Two digits of one sample's JSON, with the checksum of the member untouched: tars have none.
    def change(members):
        record = json.loads(members[2][1])
        record["label_ids"] = [0, 3 - record["label_ids"][1]]
        return [*members[:2], (members[2][0], json.dumps(record).encode()), *members[3:]]

    damaged(storage, lambda raw: repacked(raw, change))


def wrong_types(storage):
    def change(members):
        record = json.loads(members[2][1]) | {"copy_index": "0", "licence": ["CC0"]}
        return [*members[:2], (members[2][0], json.dumps(record).encode()), *members[3:]]

    damaged(storage, lambda raw: repacked(raw, change))


def extra(info):
    return lambda storage: damaged(
        storage,
        lambda raw: repacked(raw, lambda members: [*members[:3], (info, b""), *members[3:]]),
    )


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def wrong_count(storage):
    manifest = storage.read_json("manifest.json")
    manifest["shards"][1]["num_samples"] += 1
    storage.write_json_atomic("manifest.json", manifest)


def renamed_label(storage):
    damaged(storage, lambda raw: raw.replace(b"blue jay", b"blue jaw"), "label_map.json", False)


def renamed_label_signed(storage):
    damaged(storage, lambda raw: raw.replace(b"blue jay", b"blue jaw"), "label_map.json")


def missing_certificate(storage):
    storage.remove("certificate.json")


def leak_in_certificate(storage):
    def change(raw):
        return raw.replace(b'"nearest_remaining": null', b'"nearest_remaining": 0.0')

    damaged(storage, change, "certificate.json")


def truncated(storage):
    damaged(storage, lambda raw: raw[:4000])


def without_end(storage):
    damaged(storage, lambda raw: raw[:-1024])


def wrong_statistics(storage):
    def change(raw):
        return raw.replace(b'"num_tar_bytes": ', b'"num_tar_bytes": 1')

    damaged(storage, change, "statistics.json")


def forgotten_file(storage):
    storage.write_bytes_atomic("shards/shard-000009.tar", b"")


def other_weight(storage):
    manifest = storage.read_json("manifest.json")
    manifest["shards"][1]["weight"] += 0.5
    storage.write_json_atomic("manifest.json", manifest)


def two_shards_alike(storage):
    for part in ("tar", "index.parquet"):
        raw = storage.read_bytes(f"shards/shard-000000.{part}")
        storage.write_bytes_atomic(f"shards/shard-000001.{part}", raw)
    sign(storage, shards=(TAR,))


CASES = [
    (flipped_byte, {"shard_sha256": TAR, "image_sha256": TAR}),
    (flipped_byte_signed, {"image_sha256": TAR}),
    (flipped_header, {"tar_header": TAR, "missing_sample": TAR}),
    (other_mode, {"tar_header": TAR}),
    (missing_shard, {"missing_shard": TAR, "count": "statistics.json"}),
    (missing_index, {"missing_index": INDEX}),
    (index_off_by_one, {"index_offset": TAR}),
    (wrong_label, {"label_ids": TAR, "label_names": TAR, "count": "labels"}),
    (wrong_types, {"json_fields": "copy_index: str, licence: list"}),
    (extra(member("stranger.txt")), {"extra_member": "stranger"}),
    (extra(member("x.txt", tarfile.SYMTYPE, "/etc/passwd")), {"unsafe_member": "symbolic link"}),
    (extra(member("x.txt", tarfile.LNKTYPE, "y")), {"unsafe_member": "hard link"}),
    (extra(member("../x.txt")), {"unsafe_member": "../x.txt"}),
    (wrong_count, {"num_samples": TAR, "index_rows": INDEX, "count": "manifest.json"}),
    (renamed_label, {"file_sha256": "label_map.json", "label_names": TAR}),
    (renamed_label_signed, {"label_names": TAR, "text": "blue jaw"}),
    (missing_certificate, {"missing_file": "certificate.json"}),
    (leak_in_certificate, {"certificate": "nearest_remaining"}),
    (truncated, {"tar_truncated": TAR, "missing_sample": TAR}),
    (without_end, {"tar_truncated": "blocks of zeros"}),
    (wrong_statistics, {"count": "num_tar_bytes"}),
    (other_weight, {"shard_weight": INDEX}),
    (forgotten_file, {"unlisted_file": "shard-000009.tar"}),
    (two_shards_alike, {"repeated_key": "2 samples"}),
]


def test_a_good_release_passes(spark, release):
    findings = verify_release(spark, release)
    assert findings_lines(findings) == ["verified: no mismatch"]
    assert findings_lines(verify_here(release)) == findings_lines(findings)


@pytest.mark.parametrize(("damage", "kinds"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_damage_is_found_and_named(release, damage, kinds):
    damage(release)
    findings = verify_here(release)
    lines = findings_lines(findings)
    for kind, word in kinds.items():
        assert findings.counts[kind] >= 1, lines
        assert any(line.startswith(f"{kind}: ") and word in line for line in lines), lines


@pytest.mark.parametrize("damage", [flipped_byte, two_shards_alike], ids=lambda v: v.__name__)
def test_tasks_find_what_one_process_finds(spark, release, damage):
    damage(release)
    findings, expected = verify_release(spark, release), verify_here(release)
    assert findings.counts == expected.counts
    assert sorted(findings.told) == sorted(expected.told)


def test_the_job_says_it_to_scripts(release, repository):
    def verify():
        call = [sys.executable, "jobs/verify_release.py", "--root", release.root]
        environment = os.environ | {"PYTHONPATH": str(repository)}
        return subprocess.run(
            call, cwd=repository, env=environment, capture_output=True, text=True, check=False
        )

    good = verify()
    assert (good.returncode, good.stdout) == (0, "verified: no mismatch\n"), good.stderr
    flipped_byte(release)
    bad = verify()
    assert bad.returncode == 1, bad.stderr
    assert "image_sha256: 1 in all" in bad.stdout
    assert "expected" in bad.stdout

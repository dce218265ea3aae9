"""What a release says about itself: card, Croissant metadata, parameters; and damage to these."""

import hashlib
import json

import pytest
import yaml
from release_given import image_id, record, sign, verify_here, write_small_release

from pipeline.config.dataset import WriteReleaseParams
from pipeline.files.storage import open_storage
from pipeline.stages.reissue import reissue_release
from pipeline.stages.release_about import ReleaseContents, checksums, licences_of
from pipeline.stages.release_card import size_category
from pipeline.stages.release_croissant import croissant
from pipeline.stages.release_files import configuration, lineage

ABOUT = {
    "title": 'Ten thousand trees: a "test"',
    "description": "Drawings of trees.",
    "licence": "https://creativecommons.org/publicdomain/zero/1.0/",
    "creator": "Tree Society",
    "url": "https://example.org/trees",
    "citation": "@misc{trees}",
    "release_version": "2.0.1",
    "date_published": "2026-11-24",
}


@pytest.fixture
def release(tmp_path):
    return write_small_release(tmp_path / "release")


@pytest.fixture(scope="module")
def titled(tmp_path_factory):
    return write_small_release(tmp_path_factory.mktemp("titled"), **ABOUT)


def header_of(storage):
    _, header, page = storage.read_bytes("README.md").decode().split("---\n", 2)
    return yaml.safe_load(header), page


def issues(path):
    import mlcroissant

    found = mlcroissant.Dataset(path).metadata.ctx.issues
    return found.errors, found.warnings


def test_croissant_validates_with_no_warning(titled):
    assert issues(titled.path("croissant.json")) == (set(), set())
    told = titled.read_json("croissant.json")
    assert told["name"] == ABOUT["title"]
    assert told["description"] == (
        "Drawings of trees. 12 samples of 9 different images with 3 labels, in 3 shards of "
        f"{titled.read_json('statistics.json')['num_tar_bytes']:,} bytes in all."
    )
    assert told["license"] == [ABOUT["licence"]]
    assert told["creator"]["name"] == "Tree Society"
    assert (told["url"], told["version"]) == (ABOUT["url"], "2.0.1")
    assert (told["datePublished"], told["citeAs"]) == ("2026-11-24", "@misc{trees}")


def test_the_one_warning_of_the_defaults_is_the_date_that_nobody_gave(release):
    errors, warnings = issues(release.path("croissant.json"))
    assert errors == set()
    assert len(warnings) == 1
    assert "datePublished" in warnings.pop()


def test_croissant_states_hashes_and_fields_of_what_is_there(release):
    told = release.read_json("croissant.json")
    files = {f["name"]: f["sha256"] for f in told["distribution"] if "sha256" in f}
    for name, sha256 in files.items():
        assert hashlib.sha256(release.read_bytes(name)).hexdigest() == sha256
    assert {"README.md", "SHA256SUMS", "certificate.json", "label_map.json"} <= files.keys()
    fields = {r["name"]: [f["name"] for f in r["field"]] for r in told["recordSet"]}
    assert fields == {
        "labels": ["label_id", "cluster_id", "name", "l1_interest"],
        "samples": ["key", "copy_index", "image_id", "label_ids", "label_names", "licence",
                    "sha256", "source"],
        "images": ["key", "image"],
        "shard_index": ["key", "suffix", "offset", "size", "label_ids", "weight"],
    }  # fmt: skip


def test_croissant_of_many_shards_is_no_larger(release):
    names = [file["name"] for file in release.read_json("manifest.json")["files"]]
    files = {name: release.read_json(name) for name in names if name.endswith(".json")}
    line = release.read_json("manifest.json")["shards"][0]
    few, many = (
        len(json.dumps(croissant(ReleaseContents(files, [line] * n, {})))) for n in (1, 1000)
    )
    assert few == many
    assert len(checksums(ReleaseContents(files, [line] * 1000, {})).splitlines()) == 2000


def test_card_has_a_header_and_the_counts(titled):
    header, page = header_of(titled)
    assert header["pretty_name"] == ABOUT["title"]
    assert header["license_name"] == "https-creativecommons.org-publicdomain-zero-1.0"
    assert header["configs"] == [{"config_name": "default", "data_files": "shards/*.tar"}]
    assert header["size_categories"] == ["n<1K"]
    label_map = hashlib.sha256(titled.read_bytes("label_map.json")).hexdigest()
    for text in (
        "Drawings of trees.",
        "12 samples of 9 different images with 3 labels",
        f"`{label_map}`",
        "| `drop_near_duplicates` | images | 20 | 16 | blocked 1, duplicate_exact 3 |",
        "| 10 to 99 | 1 |\n| 1 to 9 | 2 |",
        "| blue jay | 8 | 8 |",
        "Policy `inverse_sqrt`",
        "threshold t 0.1, most copies of an image 20, seed 3",
        "| exact | 16 | 2 | 32 | 0 | 0 | none |",
        "@misc{trees}",
    ):
        assert text in page, text


@pytest.mark.parametrize(
    ("num", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**9, "n>1B"), (10**11, "n>1B")],
)
def test_size_category(num, category):
    assert size_category(num) == category


def test_a_release_without_validation_sets_says_so(tmp_path):
    storage = write_small_release(tmp_path, certified=False)
    assert "No validation sets were given" in header_of(storage)[1]
    assert "certificate.json" not in {
        f["name"] for f in storage.read_json("manifest.json")["files"]
    }
    assert verify_here(storage).told == []


def test_equal_releases_have_equal_descriptions(titled, tmp_path):
    again = write_small_release(tmp_path, **ABOUT)
    for name in ("README.md", "croissant.json", "SHA256SUMS", "config.json", "lineage.json"):
        assert again.read_bytes(name) == titled.read_bytes(name)


def test_licences_are_those_of_the_samples_unless_one_is_given(release):
    assert licences_of(contents_of(release)) == ["CC0 | a", "others or unknown: see LICENCES.md"]


def contents_of(storage):
    files = ("config.json", "statistics.json", "label_map.json", "funnel.json")
    return ReleaseContents({name: storage.read_json(name) for name in files}, [], {})


def test_what_is_read_from_where_is_no_part_of_a_release():
    params = WriteReleaseParams(read_threads=3)
    history = [record("write_release", params.model_dump(mode="json"), {"images": "ab"}, {})]
    told = configuration({}, {}, history)["stages"][0]
    assert told["inputs"] == ["images"]
    assert not [name for name in told["params"] if name.startswith("read_")]
    assert lineage(history)["stages"][0]["inputs"] == {"images": "ab"}


def test_a_reissue_describes_what_is_left(release, tmp_path):
    new = reissue_release(release, open_storage(str(tmp_path / "new")), [image_id(4)])
    parent = hashlib.sha256(release.read_bytes("manifest.json")).hexdigest()
    page = header_of(new)[1]
    assert "10 samples of 8 different images" in page
    assert f"SHA-256 `{parent}`. Taken out since the first issue: 2 samples of 1 images." in page
    told = new.read_json("croissant.json")
    assert told["isBasedOn"]["identifier"] == f"sha256:{parent}"
    assert {s["unitText"]: s["value"] for s in told["size"]} == {
        "samples": 10, "images": 8, "labels": 3, "shards": 3
    }  # fmt: skip
    assert issues(new.path("croissant.json"))[0] == set()
    for name in ("config.json", "funnel.json", "lineage.json", "certificate.json"):
        assert new.read_bytes(name) == release.read_bytes(name)
    assert verify_here(new).told == []


def test_a_release_of_before_is_reissued_without_descriptions(release, tmp_path):
    manifest = release.read_json("manifest.json")
    old = {"LICENCES.md", "certificate.json", "config.json", "label_map.json", "statistics.json"}
    manifest["files"] = [file for file in manifest["files"] if file["name"] in old]
    for name in ("README.md", "croissant.json", "SHA256SUMS", "funnel.json", "lineage.json"):
        release.remove(name)
    release.write_json_atomic("manifest.json", manifest)
    new = reissue_release(release, open_storage(str(tmp_path / "new")), [image_id(4)])
    assert {file["name"] for file in new.read_json("manifest.json")["files"]} == old


def changed(storage, name, old, new):
    raw = storage.read_bytes(name)
    assert raw.count(old) >= 1
    storage.write_bytes_atomic(name, raw.replace(old, new))
    sign(storage, files=(name,))


def forget(storage, *names):
    """A file gone from folder and manifest alike."""
    for name in names:
        storage.remove(name)
    manifest = storage.read_json("manifest.json")
    manifest["files"] = [file for file in manifest["files"] if file["name"] not in names]
    storage.write_bytes_atomic("manifest.json", json.dumps(manifest, indent=1).encode())


CASES = {
    "no certificate": (
        lambda s: forget(s, "certificate.json"),
        "certificate: manifest.json files certificate.json: found none, expected one",
    ),
    "no certificate and no word of one": (
        lambda s: (
            changed(s, "config.json", b'"images",\n    "validation_certificate"', b'"images"'),
            forget(s, "certificate.json"),
        ),
        "config: lineage.json write_release inputs",
    ),
    "no configuration": (
        lambda s: forget(s, "config.json"),
        "unlisted_file: manifest.json files: found no config.json",
    ),
    "no card": (lambda s: forget(s, "README.md"), "found no README.md"),
    "no lineage": (lambda s: s.remove("lineage.json"), "missing_file: lineage.json"),
    "other parameter": (
        lambda s: changed(
            s, "config.json", b'blocked_duplicates": true', b'blocked_duplicates": 1'
        ),
        "config: lineage.json drop_near_duplicates version",
    ),
    "other count in Croissant": (
        lambda s: changed(s, "croissant.json", b'"value": 12', b'"value": 13'),
        "croissant: croissant.json size samples: found 13, expected 12",
    ),
    "other hash in Croissant": (
        lambda s: changed(s, "statistics.json", b"}\n", b"}\n\n"),
        "croissant: croissant.json distribution statistics.json",
    ),
    "card of another release": (
        lambda s: changed(s, "README.md", b"9 different images", b"90 different images"),
        "card: README.md: found no such text, expected 9 different images",
    ),
    "other checksum": (
        lambda s: changed(
            s, "SHA256SUMS", b"  shards/shard-000001.tar", b"0  shards/shard-000001.tar"
        ),
        "checksums: SHA256SUMS",
    ),
    "Croissant that is a list": (
        lambda s: (
            s.write_bytes_atomic("croissant.json", b"[]"),
            sign(s, files=("croissant.json",)),
        ),
        "file_shape: croissant",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_damage_to_what_it_says_is_found(release, case):
    damage, words = CASES[case]
    damage(release)
    told = [str(mismatch) for mismatch in verify_here(release).told]
    assert any(words in line for line in told), told

"""A release opens unchanged in webdataset, `datasets`, open_clip, mlcroissant and our trainer."""

import argparse
import hashlib
import importlib.metadata
import io
import json
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version
from PIL import Image
from release_given import LABELS, write_small_release

from pipeline.config.train import DataParams, ModelParams, TrainParams
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset, build_loader
from pipeline.train.release import open_release

SIZE = 24
KINDS = {"jpeg": "jpg", "png": "png", "webp": "webp"}


def picture(i, kind="jpeg"):
    out = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE + i), (i * 40 % 256, 90, 200)).save(out, kind)
    return out.getvalue()


def mixed(i):
    return list(KINDS)[i % 3]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_small_release(tmp_path_factory.mktemp("jpeg"), num_shards=4, image=picture)


@pytest.fixture(scope="module")
def mixed_release(tmp_path_factory):
    return write_small_release(
        tmp_path_factory.mktemp("mixed"), num_shards=4, image=lambda i: picture(i, mixed(i)),
        image_format=mixed,
    )  # fmt: skip


def shards_of(storage):
    return [storage.path(line["name"]) for line in storage.read_json("manifest.json")["shards"]]


def planned(storage):
    """What tarfile reads: key -> (suffix, image, text, record), for others to agree with."""
    found = {}
    for shard in shards_of(storage):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = tar.extractfile(member).read()
    samples = {}
    for key, members in found.items():
        text, record = members.pop("txt").decode(), json.loads(members.pop("json"))
        (suffix,) = members
        samples[key] = (suffix, members[suffix], text, record)
    return samples


def height_of(raw):
    return Image.open(io.BytesIO(raw)).height


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("which", ["release", "mixed_release"])
def test_webdataset(request, which, workers):
    import webdataset

    storage = request.getfixturevalue(which)
    samples = webdataset.WebDataset(shards_of(storage), shardshuffle=False).decode("pil")
    samples = samples.to_tuple("__key__", "jpg;png;webp", "txt", "json")
    loader = webdataset.WebLoader(samples, batch_size=None, num_workers=workers)
    expected, seen = planned(storage), []
    for key, image, text, record in loader:
        _, raw, wanted_text, wanted_record = expected[key]
        assert (image.height, text, record) == (height_of(raw), wanted_text, wanted_record)
        seen.append(key)
    assert sorted(seen) == sorted(expected)


def agree(rows, storage):
    expected, seen = planned(storage), []
    for row in rows:
        suffix, raw, text, record = expected[row["__key__"]]
        assert (row["txt"], row["json"]) == (text, record)
        assert row[suffix].height == height_of(raw)
        seen.append(row["__key__"])
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("which", ["release", "mixed_release"])
def test_datasets_by_the_card(request, tmp_path, which, streaming):
    import datasets

    storage = request.getfixturevalue(which)
    rows = datasets.load_dataset(
        storage.root, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    suffixes = ["jpg"] if which == "release" else ["jpg", "png", "webp"]
    assert rows.features == features(datasets, suffixes)
    agree(rows, storage)


def features(datasets, suffixes):
    text, number = datasets.Value("string"), datasets.Value("int64")
    record = dict.fromkeys(("image_id", "licence", "sha256", "source"), text)
    record |= {"copy_index": number, "label_ids": datasets.List(number)}
    record |= {"label_names": datasets.List(text)}
    columns = dict.fromkeys(suffixes, datasets.Image())
    columns |= {"txt": text, "json": record, "__key__": text, "__url__": text}
    return datasets.Features(columns)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_by_files(release, tmp_path, streaming):
    import datasets

    rows = datasets.load_dataset(
        "webdataset", data_files=shards_of(release), features=features(datasets, ["jpg"]),
        split="train", streaming=streaming, cache_dir=str(tmp_path),
    )  # fmt: skip
    agree(rows, release)


def test_datasets_guesses_no_other_columns_than_the_card_names(release, tmp_path):
    """Without card and features: the guess is ours where five samples show every field."""
    import datasets

    rows = datasets.load_dataset(
        "webdataset", data_files=shards_of(release), split="train", streaming=True,
        cache_dir=str(tmp_path),
    )  # fmt: skip
    expected = features(datasets, ["jpg"])
    guessed = datasets.Features({name: rows.features[name] for name in expected})
    expected["json"]["licence"] = datasets.Value("null")  # the first five samples have none
    assert guessed == expected


@pytest.mark.parametrize("is_train", [False, True])
@pytest.mark.parametrize("which", ["release", "mixed_release"])
def test_open_clip(request, which, is_train):
    if is_train and Version(importlib.metadata.version("webdataset")) > Version("0.2.86"):
        pytest.skip("open_clip 3.3 trains with webdataset <= 0.2.86 only (its issue 935)")
    import open_clip
    import open_clip_train.data as data

    storage = request.getfixturevalue(which)
    expected = planned(storage)
    shards = shards_of(storage)
    pattern = f"{shards[0].removesuffix('000000.tar')}{{000000..{len(shards) - 1:06d}}}.tar"
    args = argparse.Namespace(
        train_data=pattern, train_num_samples=len(expected), val_data=pattern,
        val_num_samples=len(expected), train_data_upsampling_factors=None, dataset_resampled=False,
        dataset_type="webdataset", seed=0, batch_size=2, workers=2, world_size=1, distributed=False,
    )  # fmt: skip
    tokenizer = open_clip.SimpleTokenizer()
    info = data.get_wds_dataset(
        args, lambda image: image.height, is_train=is_train, tokenizer=tokenizer
    )
    seen = [
        (int(height), tokenizer.decode(text.tolist()))
        for heights, texts in info.dataloader
        for height, text in zip(heights, texts, strict=True)
    ]
    assert info.dataloader.num_samples == len(seen) == len(expected)
    words = [(height_of(raw), decoded(tokenizer, text)) for _, raw, text, _ in expected.values()]
    assert sorted(seen) == sorted(words)  # it would leave an unreadable sample out in silence
    assert len({text for _, text in words}) == len(LABELS) - 1


def decoded(tokenizer, text):
    return tokenizer.decode(tokenizer(text)[0].tolist())


@pytest.mark.parametrize("which", ["release", "mixed_release"])
def test_the_bundled_trainer(request, which):
    storage = request.getfixturevalue(which)
    opened, expected = open_release(storage.uri), planned(storage)
    params = TrainParams(
        model=ModelParams(name="vit_tiny_patch16_224", image_size=16, patch_size=8),
        data=DataParams(global_batch=4, virtual_ranks=1, lanes=1, window=8, chunk=2),
    )
    params = params.model_copy(update={"run": params.run.model_copy(update={"workers": 0})})
    loader = iter(build_loader(ShardDataset(opened, params, 0, 1, Position())))
    seen = {}
    for _ in range(len(expected) // 4):
        for batch in next(loader).micro:
            assert batch.failures == []
            bounds = batch.label_offsets.tolist()
            for i, key in enumerate(batch.keys):
                seen[key] = batch.label_values[bounds[i] : bounds[i + 1]].tolist()
    assert seen == {key: record["label_ids"] for key, (*_, record) in expected.items()}


def test_mlcroissant(release):
    import mlcroissant

    dataset = mlcroissant.Dataset(release.path("croissant.json"))
    labels = list(dataset.records("labels"))
    assert [row["labels/label_id"] for row in labels] == [0, 1, 2]
    assert [row["labels/name"].decode() for row in labels] == list(LABELS)
    expected = planned(release)
    rows = {row["shard_index/key"].decode(): row for row in dataset.records("shard_index")}
    assert rows.keys() == expected.keys()
    for key, (suffix, raw, _, record) in expected.items():
        assert rows[key]["shard_index/label_ids"] == record["label_ids"]
        assert rows[key]["shard_index/size"] == len(raw)
        assert rows[key]["shard_index/suffix"].decode() == suffix


def test_sums_are_those_of_sha256sum(release):
    lines = release.read_bytes("SHA256SUMS").decode().splitlines()
    told = dict(line.split("  ")[::-1] for line in lines)
    assert {Path(n).name for n in told} >= {"README.md", "shard-000003.tar", "label_map.json"}
    for name, digest in told.items():
        assert hashlib.sha256(release.read_bytes(name)).hexdigest() == digest


def test_loaders_are_asked_for_by_the_dev_extra(repository):
    """A loader that is not installed is skipped above; here it would be missed."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    asked = " ".join(project["optional-dependencies"]["dev"])
    assert all(name in asked for name in ("datasets", "mlcroissant", "open_clip_torch"))

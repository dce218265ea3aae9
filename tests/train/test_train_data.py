"""Release and loader: what is refused, what is masked, and that hardware does not matter."""

from __future__ import annotations

import hashlib
import io
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset, build_loader
from pipeline.train.release import CorruptSampleError, open_release


def steps(dataset, count):
    return list(itertools.islice(iter(dataset), count))


def keys(batches):
    return [[key for m in b.micro for key in m.keys] for b in batches]


# --- release -------------------------------------------------------------------------------------


def test_release_is_read(release_root):
    release = open_release(str(release_root))
    assert (release.num_samples, release.num_labels) == (32, 5)
    assert release.label_names[2] == "colour 2"
    assert release.lengths.tolist() == [13, 7, 12]
    index = release.read_index(1)
    assert index.labels(0).tolist() == sorted({13 % 5, 13 // 5, 13 // 7})[:2]
    assert str(index.suffixes[0]) == "png"
    with Image.open(io.BytesIO(release.read_image(1, index.member(0)))) as image:
        assert image.format == "PNG"
    assert open_release(str(release_root / "v1")).manifest_sha256 == release.manifest_sha256


def test_missing_release_names_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        open_release(str(tmp_path))


def test_changed_label_map_is_refused(make_release):
    root = make_release()
    path = root / "v1/label_map.json"
    path.write_text(path.read_text().replace("colour 1", "colour one"))
    with pytest.raises(ValueError, match=r"label_map\.json: sha256"):
        open_release(str(root))


def test_changed_index_is_refused(make_release):
    root = make_release()
    (root / "v1/shards/shard-000001.index.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptSampleError, match=r"shard-000001\.index\.parquet: sha256"):
        open_release(str(root)).read_index(1)


def test_manifest_that_miscounts_is_refused(make_release):
    root = make_release()
    path = root / "v1/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["num_samples"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="num_samples 32, expected 33"):
        open_release(str(root))


def test_swapped_and_truncated_shards_are_noticed(make_release):
    root = make_release(shard_sizes=(4, 4))
    release = open_release(str(root))
    index = release.read_index(0)
    first, second = (root / f"v1/shards/shard-00000{i}.tar" for i in (0, 1))
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(CorruptSampleError, match="tar member"):
        release.read_image(0, index.member(0))
    first.write_bytes(whole[: int(index.offsets[2]) + 10])
    assert release.read_image(0, index.member(1))
    with pytest.raises(CorruptSampleError, match="522 bytes"):
        release.read_image(0, index.member(2))
    first.unlink()
    with pytest.raises(CorruptSampleError, match="no such file"):
        release.read_image(0, index.member(0))


def test_label_outside_the_label_map_is_refused(make_release):
    root = make_release()
    manifest = json.loads((root / "v1/manifest.json").read_text())
    short = json.loads((root / "v1/label_map.json").read_text())
    short["labels"] = short["labels"][:3]
    data = json.dumps(short).encode()
    (root / "v1/label_map.json").write_bytes(data)
    manifest |= {"label_map_sha256": hashlib.sha256(data).hexdigest(), "num_labels": 3}
    (root / "v1/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="expected 0 to 2"):
        open_release(str(root)).read_index(0)


def test_label_given_twice_is_refused(make_release, monkeypatch):
    monkeypatch.setattr("builtins.sorted", lambda labels: [*labels, *labels])
    root = make_release()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="distinct"):
        open_release(str(root)).read_index(0)


# --- loader --------------------------------------------------------------------------------------


def test_global_steps_do_not_depend_on_processes_micro_batches_or_workers(
    release_root, make_params
):
    release = open_release(str(release_root))
    whole = ShardDataset(release, make_params(), 0, 1, Position())
    expected = steps(whole, 6)
    for world in (2, 4):
        params = make_params(run={"micro_batch": 1})
        ranks = [
            steps(ShardDataset(release, params, r, world, Position()), 6) for r in range(world)
        ]
        for i, one in enumerate(expected):
            micro = [m for rank in ranks for m in rank[i].micro]
            assert [k for m in micro for k in m.keys] == one.micro[0].keys
            assert torch.equal(torch.cat([m.images for m in micro]), one.micro[0].images)
            labels = torch.cat([m.label_values for m in micro])
            assert torch.equal(labels, one.micro[0].label_values)
    for workers in (1, 2):
        params = make_params(run={"workers": workers})
        loader = build_loader(ShardDataset(release, params, 0, 1, Position()))
        got = list(itertools.islice(iter(loader), 6))
        assert keys(got) == keys(expected)
        assert [b.position for b in got] == [b.position for b in expected]
        assert torch.equal(got[5].micro[0].images, expected[5].micro[0].images)


def test_epochs_show_each_sample_once_and_resume_anywhere(release_root, make_params):
    release = open_release(str(release_root))
    dataset = ShardDataset(release, make_params(), 0, 1, Position())
    run = steps(dataset, 9)
    epochs = [sorted(itertools.chain(*keys(run[i : i + 4]))) for i in (0, 4)]
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) == 32
    assert keys(run[:4]) != keys(run[4:8])
    for i, batch in enumerate(run[:8]):
        later = ShardDataset(release, make_params(), 0, 1, batch.after)
        assert keys(steps(later, 1)) == keys([run[i + 1]])
        assert torch.equal(steps(later, 1)[0].micro[0].images, run[i + 1].micro[0].images)


def test_images_and_labels_belong_together(release_root, make_params):
    release = open_release(str(release_root))
    truth = {}
    for shard in range(3):
        index = release.read_index(shard)
        for row, key in enumerate(index.keys.to_pylist()):
            truth[key] = index.labels(row).tolist()
    for batch in steps(ShardDataset(release, make_params(), 0, 1, Position()), 4):
        for m in batch.micro:
            offsets = m.label_offsets.tolist()
            for i, key in enumerate(m.keys):
                assert m.label_values[offsets[i] : offsets[i + 1]].tolist() == truth[key]


def test_half_of_the_crops_are_mirrored_where_the_recipe_says_so(release_root, make_params):
    """Nothing else changes: not the crops, not the order."""
    release = open_release(str(release_root))
    plain, mirrored = (
        steps(ShardDataset(release, make_params(data=data), 0, 1, Position()), 4)
        for data in ({}, {"horizontal_flip": True})
    )
    assert keys(plain) == keys(mirrored)
    before, after = (torch.cat([b.micro[0].images for b in run]) for run in (plain, mirrored))
    chosen = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert 8 <= sum(chosen) <= 24
    assert torch.equal(before[chosen].flip(-1), after[chosen])


def test_corrupt_samples_are_masked_and_named(make_release, make_params):
    release = open_release(str(make_release(damaged=frozenset({2, 9}))))
    batches = steps(ShardDataset(release, make_params(), 0, 1, Position()), 4)
    micro = [m for b in batches for m in b.micro]
    assert sum(int((~m.valid).sum()) for m in micro) == 2
    bad = [f for m in micro for f in m.failures]
    assert len(bad) == 2
    assert all("shard-000000.tar" in f for f in bad)
    for m in micro:
        assert (m.images[~m.valid] == 0).all()
        assert (m.label_offsets.diff()[~m.valid] == 0).all()
        assert len(m.images) == 8


def test_sampling_over_materialised_copies_is_refused(release_root, make_params):
    params = make_params(data={"sampling": "policy"})
    with pytest.raises(ValueError, match="expected 'natural'"):
        ShardDataset(open_release(str(release_root)), params, 0, 1, Position())


def test_policy_draws_copies_anew_each_epoch(make_release, make_params):
    root = make_release(materialised=False, weights=(2.0, 0.3))
    params = make_params(data={"sampling": "policy", "global_batch": 4, "lanes": 1})
    dataset = ShardDataset(open_release(str(root)), params, 0, 1, Position())
    assert dataset.images_per_epoch == 37  # 16 x 2.0 and 16 x 0.3
    sizes = [dataset.plan(epoch).num_samples for epoch in range(12)]
    assert len(set(sizes)) > 1
    assert np.mean(sizes) == pytest.approx(36.8, abs=1)
    plan = dataset.plan(0)
    crops = {}
    for step in range(plan.num_steps):
        (m,) = dataset.load(plan, step).micro
        for key, image in zip(m.keys, m.images, strict=True):
            crops.setdefault(key, []).append(image)
    twice = [c for c in crops.values() if len(c) == 2]
    assert max(len(c) for c in crops.values()) == 2
    assert any(not torch.equal(*pair) for pair in twice)


def test_single_label_draws_one_label_per_epoch(release_root, make_params):
    params = make_params(loss="single_label_softmax")
    release = open_release(str(release_root))
    drawn = {}
    for batch in steps(ShardDataset(release, params, 0, 1, Position()), 40):
        for m in batch.micro:
            assert (m.label_offsets.diff() == 1).all()
            for key, label in zip(m.keys, m.label_values.tolist(), strict=True):
                drawn.setdefault(key, set()).add(label)
    index = release.read_index(0)
    truth = {k: set(index.labels(i).tolist()) for i, k in enumerate(index.keys.to_pylist())}
    assert all(drawn[key] <= labels for key, labels in truth.items())
    assert sum(len(drawn[k]) > 1 for k in truth) >= 6


@pytest.mark.parametrize(
    ("over", "world", "message"),
    [
        ({}, 3, "3 processes do not divide"),
        ({"run": {"workers": 3}}, 1, r"run\.workers = 3"),
        ({"run": {"micro_batch": 3}}, 2, "global_batch"),
        ({"data": {"global_batch": 64}}, 1, "global_batch x lanes"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(release_root, make_params, over, world, message):
    release = open_release(str(release_root))
    with pytest.raises(ValueError, match=message):
        ShardDataset(release, make_params(**over), 0, world, Position()).plan(0)


def test_virtual_ranks_must_divide_the_batch(make_params):
    with pytest.raises(ValueError, match="virtual_ranks = 3"):
        make_params(data={"virtual_ranks": 3})

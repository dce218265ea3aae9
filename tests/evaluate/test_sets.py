"""Where evaluation images come from: held-out part, folders, tables, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_release import tagged_folder

from pipeline.config.train import DataParams
from pipeline.evaluate.sets import held_out_set, tagged_set
from pipeline.train.holdout import is_held_out
from pipeline.train.release import CorruptSampleError, open_release


def test_held_out_set_is_the_part_that_training_does_not_show(planted):
    release = open_release(str(planted))
    held, trained = held_out_set(release, DataParams(holdout_share=0.2))
    indexes = [release.read_index(s) for s in range(len(release.shards))]
    keys = np.array([k for index in indexes for k in index.keys.to_pylist()])
    labels = [index.labels(i) for index in indexes for i in range(len(index.keys))]
    out = is_held_out(keys.tolist(), 0.2)
    assert held.ids == sorted(keys[out])
    of_key = dict(zip(keys, labels, strict=True))
    assert held.labels is not None
    for i in (0, 7, len(held.ids) - 1):
        own = held.labels.values[held.labels.offsets[i] : held.labels.offsets[i + 1]]
        assert own.tolist() == of_key[held.ids[i]].tolist()
        # interest of the rarest label among those trained on
        rarest = min(own, key=lambda c: (trained.counts[c], c))
        assert held.class_names[held.classes[i]] == f"interest {rarest % 4}"
    kept = [own for own, gone in zip(labels, out, strict=True) if not gone]
    assert trained.num_images == len(kept)
    assert trained.counts.tolist() == np.bincount(np.concatenate(kept), minlength=16).tolist()
    assert trained.mass.sum() == pytest.approx(len(kept))
    where = [(s, i) for s, index in enumerate(indexes) for i in range(len(index.keys))]
    shard, row = where[keys.tolist().index(held.ids[3])]
    assert held.read(3).data == release.read_image(shard, indexes[shard].member(row))
    assert held.read(3).suffix == "png"


def test_nothing_held_out(planted):
    with pytest.raises(ValueError, match=r"Set train\.data\.holdout_share"):
        held_out_set(open_release(str(planted)), DataParams())


def test_folder_and_table_give_the_same_set(tmp_path):
    folder = tagged_folder(tmp_path / "folder", 3, 4)
    (folder / "texture_00" / "notes.txt").write_text("no image")
    images = tagged_set("t", str(folder))
    assert images.class_names == ("texture_00", "texture_01", "texture_02")
    assert images.classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.ids[5] == "texture_01/001.png"
    data = [images.read(i) for i in range(12)]
    assert data[5].data == (folder / images.ids[5]).read_bytes()
    table = pa.table(
        {
            "image_id": images.ids,
            "tag": [images.class_names[c] for c in images.classes],
            "bytes": [x.data for x in data],
        }
    )
    (tmp_path / "tables").mkdir()
    pq.write_table(table.slice(0, 7), tmp_path / "tables/a.parquet", row_group_size=3)
    pq.write_table(table.slice(7), tmp_path / "tables/b.parquet")
    found = tagged_set("t", str(tmp_path / "tables"))
    assert (found.ids, found.class_names) == (images.ids, images.class_names)
    assert found.classes.tolist() == images.classes.tolist()
    for i in (11, 0, 6, 7, 2):
        assert found.read(i).data == data[i].data
    alone = tagged_set("t", str(tmp_path / "tables/b.parquet"))
    assert alone.ids == images.ids[7:]


def test_what_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no tagged image, expected FOLDER/TAG/IMAGE"):
        tagged_set("t", str(tmp_path / "empty"))
    rows = {"image_id": ["a", "a"], "tag": ["x", "y"], "bytes": [b"1", None]}
    pq.write_table(pa.table(rows), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="image_id 'a' twice"):
        tagged_set("t", str(tmp_path / "twice.parquet"))
    pq.write_table(pa.table({"image_id": ["a"], "bytes": [b"1"]}), tmp_path / "untagged.parquet")
    with pytest.raises(ValueError, match="no column tag"):
        tagged_set("t", str(tmp_path / "untagged.parquet"))
    rows["image_id"] = ["a", "b"]
    pq.write_table(pa.table(rows), tmp_path / "null.parquet")
    with pytest.raises(CorruptSampleError, match="bytes are null"):
        tagged_set("t", str(tmp_path / "null.parquet")).read(1)

"""Where photos to fit on come from: a folder, a table, the packaged corpus."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.demo.edit_pairs import demo_pictures
from pipeline.demo.fit_pairs import read_pictures

NUM = 6


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return demo_pictures(NUM, seed=3)


def test_a_folder_gives_what_decodes(tmp_path: Path, pictures: list[bytes]) -> None:
    (tmp_path / "deep").mkdir()
    for k, data in enumerate(pictures):
        (tmp_path / ("deep" if k % 2 else ".") / f"{k}.bin").write_bytes(data)
    (tmp_path / "notes.txt").write_text("no picture")
    photos, pool = read_pictures(str(tmp_path), 4, 10, seed=0)
    assert len(photos) == 4
    assert sorted(photos + pool) == sorted(pictures)
    assert read_pictures(str(tmp_path), 4, 1, seed=0) == (photos, pool[:1])
    assert read_pictures(str(tmp_path), 4, 1, seed=1)[0] != photos
    with pytest.raises(
        ValueError, match="6 of 7 files are pictures that decode, expected at least 7"
    ):
        read_pictures(str(tmp_path), 7, 0, seed=0)


def test_a_table_gives_bytes_or_what_uris_name(tmp_path: Path, pictures: list[bytes]) -> None:
    for k, data in enumerate(pictures[:2]):
        (tmp_path / f"{k}.png").write_bytes(data)
    uris = [str(tmp_path / f"{k}.png") for k in range(2)] + [None] * (NUM - 2)
    uris += [str(tmp_path / "not there")]
    contents = [None, None, *pictures[2:], None]
    table = pa.table(
        {"image_id": [f"i{k}" for k in range(NUM + 1)], "uri": uris, "bytes": contents}
    )
    folder = tmp_path / "table"
    folder.mkdir()
    pq.write_table(table.slice(0, 4), folder / "a.parquet", row_group_size=3)
    pq.write_table(table.slice(4), folder / "b.parquet")
    photos, pool = read_pictures(str(folder), 3, 10, seed=0)
    assert sorted(photos + pool) == sorted(pictures)
    whole = tmp_path / "whole.parquet"
    pq.write_table(table.drop(["uri"]), whole)
    assert sorted(read_pictures(str(whole), 4, 0, seed=0)[0]) == sorted(pictures[2:])
    pq.write_table(table.drop(["bytes"]), whole)
    assert sorted(read_pictures(str(whole), 2, 0, seed=0)[0]) == sorted(pictures[:2])


def test_the_demo_is_a_place(pictures: list[bytes]) -> None:
    photos, pool = read_pictures("demo", NUM, 2, seed=3)
    assert photos == pictures
    assert len(pool) == 2

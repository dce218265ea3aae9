"""Each adapter on folders of real pictures: to tables, broken rows told with their reason."""

import json
import os
import tarfile

import pyarrow.parquet as pq
import pytest
from adapter_sources import (
    append_csv,
    demo_rows,
    files_below,
    read_tables,
    suffix_of,
    write_folder,
    write_hub_parquet,
    write_tar,
)

from pipeline.config.imports import ImportParams
from pipeline.config.load import load_config
from pipeline.files.storage import open_storage
from pipeline.runtime.adapters.command import run_import
from pipeline.runtime.adapters.run import import_source

ONE = {"processes": 1, "min_term_images": 2}


@pytest.fixture(scope="module")
def rows(repository):
    return demo_rows(repository, 40)


def run(source, root, **params):
    done = import_source(str(source), str(root), ImportParams(**(ONE | params)))
    return done, read_tables(root, done)


def rejected(tables):
    rows = tables["rejected_imports"]
    return {r["row_key"]: r["reason"] for r in rows if r["reason"] != "rare_term"}


def ledger_closes(done, tables):
    counts = done.manifest["counts"]
    assert counts["images"] == len(tables["images"])
    assert sum(done.manifest["reasons"].values()) == len(tables["rejected_imports"])
    assert counts["samples"] == counts["images"] + counts["rejected"]
    ids = [r["image_id"] for r in tables["images"]]
    assert len(set(ids)) == len(ids)


def test_folder_with_csv(tmp_path, rows):
    source = tmp_path / "photos"
    names = write_folder(source, rows)
    (source / "cut.png").write_bytes(rows[0]["bytes"][:400])
    (source / "outside.png").symlink_to("/etc/hostname")
    (source / "loop").symlink_to(source)
    (source / "new\nline.png").write_bytes(rows[0]["bytes"])
    (source / "alone.png").write_bytes(rows[1]["bytes"])
    (source / "side.png").write_bytes(rows[2]["bytes"])
    (source / "side.png.txt").write_text("a side-car's own caption")
    append_csv(
        source, ["cut.png", "cut", "x"], ["gone.png", "gone", "x"], [names[0], "again", "x"],
        ["../up.png", "up", "x"], ["/etc/passwd", "root", "x"], ["outside.png", "out", "x"],
        ["one column"], ["", "nothing", "x"],
    )  # fmt: skip
    done, tables = run(source, tmp_path / "root")
    found = rejected(tables)
    line = len(rows) + 2
    assert found == {
        "cut.png": found["cut.png"], "gone.png": "missing_file", names[0]: "duplicate_name",
        f"metadata.csv:{line + 3}": "unsafe_name", f"metadata.csv:{line + 4}": "unsafe_name",
        "outside.png": "outside_source", f"metadata.csv:{line + 6}": "bad_row",
        f"metadata.csv:{line + 7}": "bad_row", "loop": "symlinked_folder",
        "new\nline.png": "unsafe_name", "alone.png": "missing_text",
    }  # fmt: skip
    assert found["cut.png"] in ("truncated", "decode_error")
    ledger_closes(done, tables)
    by_id = {r["image_id"]: r for r in tables["images"]}
    assert set(by_id) == {*names, "side.png"}
    assert by_id["side.png"]["description"] == "a side-car's own caption"
    first = by_id[names[3]]
    assert (first["uri"], first["bytes"]) == (str(source / names[3]), None)
    assert first["tags"] == rows[3]["tags"]
    assert done.manifest["annotations"] == "keywords"
    terms = {r["text"] for r in tables["terms"]}
    keys = [t.lower() for row in rows for t in set(row["tags"])]
    assert {k for k in keys if keys.count(k) >= 3} <= terms
    assert all(keys.count(t) >= 2 for t in terms)


def test_folder_with_json_side_cars_and_lines(tmp_path, rows):
    source = tmp_path / "photos"
    for i, row in enumerate(rows[:12]):
        place = source / ("lines" if i % 2 else "cars") / f"p{i:02d}.{suffix_of(row)}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(row["bytes"])
        about = {"caption": row["title"], "keywords": ["drawing", {"label": "art", "score": 0.5}]}
        if i % 2:
            with (source / "lines" / "metadata.jsonl").open("a") as out:
                out.write(json.dumps(about | {"file_name": place.name}) + "\n")
        else:
            place.with_suffix(".json").write_text(json.dumps(about))
    (source / "cars" / "p00.json").write_text("{")
    (source / "cars" / "p02.json").write_text('{"caption": "\\ud800"}')
    (source / "cars" / "orphan.json").write_text("{}")
    with (source / "lines" / "metadata.jsonl").open("a") as out:
        out.write('[1]\n{"file_name": "none.png", "caption": "c"}\n')
    done, tables = run(source, tmp_path / "root", samples_per_part=5)
    first, third = (f"cars/p{i:02d}.{suffix_of(rows[i])}" for i in (0, 2))
    assert rejected(tables) == {
        first: "bad_json", third: "bad_text", "cars/orphan.json": "missing_file",
        "lines/metadata.jsonl:7": "bad_json", "lines/none.png": "missing_file",
    }  # fmt: skip
    ledger_closes(done, tables)
    scores = {r["term"]: r["score"] for r in tables["annotations_long"]}
    assert scores == {"drawing": 1.0, "art": 0.5}


def test_tars_of_img2dataset(tmp_path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tmp_path / "shards"
    long_name = "deep/" * 30 + "picture"
    extra = [
        ("evil.jpg", "/etc/passwd"),
        ("../up.jpg", rows[0]["bytes"]),
        ("text.txt", b"no picture"),
        ("twice.jpg", rows[0]["bytes"]),
        ("twice.jpg", rows[0]["bytes"]),
        (f"{long_name}.{suffix_of(rows[0])}", rows[0]["bytes"]),
        (f"{long_name}.txt", b"a long name"),
        ("000000000.jpg", rows[0]["bytes"]),
    ]
    write_tar(source / "00000.tar", rows[:20], extra)
    write_tar(source / "00001.tar", rows[20:])
    data = (source / "00001.tar").read_bytes()
    with tarfile.open(source / "00001.tar") as tar:
        cut = tar.getmember("000010019." + suffix_of(rows[39])).offset_data
    (source / "00001.tar").write_bytes(data[: cut + 100])
    table = {
        "key": ["000000001", "lost"],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "HTTP Error 404"],
        "url": ["https://a.example/x", "u"],
    }
    pq.write_table(pa.table(table), source / "00000.parquet")
    done, tables = run(source, tmp_path / "root")
    assert rejected(tables) == {
        "00000/evil": "unsafe_member", "00000/../up": "unsafe_member",
        "00000/text": "missing_image", "00000/twice": "duplicate_member",
        "00000/000000000": "duplicate_name", "00000/lost": "not_downloaded",
        "00001/000010019": "tar_truncated", "00001.tar": "tar_truncated",
    }  # fmt: skip
    ledger_closes(done, tables)
    by_id = {r["image_id"]: r for r in tables["images"]}
    assert len(by_id) == 20 + 19 + 1
    assert by_id[f"00000/{long_name}"]["description"] == "a long name"
    assert by_id["00000/000000001"]["bytes"] == rows[1]["bytes"]
    assert done.manifest["annotations"] == "predicted"
    assert load_config(done.config_path).inputs.annotations_long is None


def test_hugging_face_parquet(tmp_path, rows):
    source = tmp_path / "hub"
    pictures = [{"bytes": r["bytes"], "path": "x"} for r in rows[:6]]
    (source).mkdir()
    (source / "inside.png").write_bytes(rows[6]["bytes"])
    pictures += [
        {"bytes": None, "path": "inside.png"}, {"bytes": None, "path": "../up.png"},
        {"bytes": b"not a picture", "path": None}, None,
    ]  # fmt: skip
    captions = [r["title"] for r in rows[:9]] + ["none"]
    write_hub_parquet(
        source / "data/train.parquet", pictures, captions, [0, 1] * 5, ["Cat", "Dog, wild"]
    )
    (source / "data" / "broken.parquet").write_bytes(b"PAR1 broken")
    done, tables = run(source, tmp_path / "root")
    assert rejected(tables) == {
        "data/train/000000007": "unsafe_name", "data/train/000000008": "unsupported_format",
        "data/train/000000009": "missing_image", "data/broken.parquet": "bad_parquet",
    }  # fmt: skip
    ledger_closes(done, tables)
    assert [r["text"] for r in tables["terms"]] == ["cat", "dog, wild"]
    assert tables["images"][6]["uri"] == str(source / "inside.png")
    assert {r["term"] for r in tables["annotations_long"]} == {"Cat", "Dog, wild"}


def test_same_bytes_again_and_an_unchanged_source_is_not_read(tmp_path, rows):
    source = tmp_path / "photos"
    write_folder(source, rows)
    root = tmp_path / "root"
    done, _ = run(source, root, samples_per_part=7)
    before = files_below(root)
    mine = f"extends: {root}/imported.yaml\nembed_images: {{threads: 2}}\n"
    (root / "mine.yaml").write_text(mine)
    stamp = os.stat(root / done.folder / "import.json").st_mtime_ns
    run(source, root, samples_per_part=7)
    assert os.stat(root / done.folder / "import.json").st_mtime_ns == stamp
    assert load_config(done.config_path).embed_images.threads == 2
    # The pool starts interpreters, which takes seconds: with the whole chain only.
    processes = 2 if os.environ.get("IMPORT_RELEASE") else 1
    params = ImportParams(**ONE | {"samples_per_part": 7, "processes": processes})
    import_source(str(source), str(root), params, force=True)
    assert os.stat(root / done.folder / "import.json").st_mtime_ns != stamp
    (root / "mine.yaml").write_bytes(before[(root / "mine.yaml").relative_to(root)])
    assert files_below(root) == before


def test_a_killed_import_leaves_the_earlier_one(tmp_path, rows, monkeypatch):
    source, root = tmp_path / "photos", tmp_path / "root"
    write_folder(source, rows)
    done, _ = run(source, root)
    before = (root / "imported.yaml").read_bytes()
    (source / "one.png").write_bytes(rows[0]["bytes"])
    monkeypatch.setattr("pipeline.runtime.adapters.run._finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(source, root)
    assert (root / "imported.yaml").read_bytes() == before
    assert load_config(done.config_path).inputs.images.path.endswith(f"{done.folder}/images")


def test_what_cannot_be_imported_is_told(tmp_path, rows):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected tars"):
        run(tmp_path / "empty", tmp_path / "root")
    write_folder(tmp_path / "photos", rows[:5])
    with pytest.raises(ValueError, match="is on 100 of 5 images"):
        run(tmp_path / "photos", tmp_path / "root", min_term_images=100)
    (tmp_path / "photos" / "metadata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column of file names, found"):
        run(tmp_path / "photos", tmp_path / "root")
    with pytest.raises(ValueError, match="--column 'caption'"):
        run_import(None, ["--source", "x", "--root", "y", "--column", "caption"])


def as_folder(source, rows):
    write_folder(source, rows)
    (source / "part 0" / "broken.png").write_bytes(rows[0]["bytes"][:400])
    append_csv(source, ["part 0/broken.png", "cut", "cut"])


def as_tars(source, rows):
    half = len(rows) // 2
    extra = [("broken.png", rows[0]["bytes"][:400]), ("broken.txt", b"cut")]
    write_tar(source / "00000.tar", rows[:half], extra)
    write_tar(source / "00001.tar", rows[half:])


def as_hub_parquet(source, rows):
    names = sorted({row["tags"][0] for row in rows if row["tags"]})
    labels = [names.index(row["tags"][0]) if row["tags"] else None for row in rows]
    pictures = [{"bytes": row["bytes"], "path": f"{i}.png"} for i, row in enumerate(rows)]
    pictures.append({"bytes": rows[0]["bytes"][:400], "path": "broken.png"})
    captions = [" ".join((row["title"], *row["tags"])) for row in rows]
    write_hub_parquet(source / "train.parquet", pictures, [*captions, "cut"], [*labels, 0], names)


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not os.environ.get("IMPORT_RELEASE"), reason="a whole chain: IMPORT_RELEASE=1")
@pytest.mark.parametrize("write", [as_folder, as_tars, as_hub_parquet])
def test_one_command_to_a_release(write, tmp_path, repository):
    source, root = tmp_path / "given", tmp_path / "root"
    source.mkdir()
    write(source, demo_rows(repository, 600, 9))
    run_import(None, ["--source", str(source), "--root", str(root), "--processes", "1"])
    current = json.loads((root / "release" / "CURRENT.json").read_text())
    manifest = open_storage(str(root)).read_json(f"release/{current['path']}/manifest.json")
    assert manifest["shards"]
    (table,) = {
        path.parent for path in root.rglob("*.parquet") if path.parent.name == "rejected_imports"
    }
    reasons = pq.read_table(table)["reason"].to_pylist()
    assert sum(reason != "rare_term" for reason in reasons) == 1

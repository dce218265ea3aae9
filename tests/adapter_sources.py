"""Sample folders as strangers leave them, made of the demo's pictures."""

import csv
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.storage import open_storage

DEMO = "pipeline/demo/data/images.parquet"


def demo_rows(repository, num_rows, step=7):
    """Rows of the demo corpus, spread over it."""
    table = pq.read_table(repository / DEMO)
    return table.take(list(range(0, num_rows * step, step))).to_pylist()


def suffix_of(row):
    return "webp" if row["bytes"][:4] == b"RIFF" else "png"


def add_file(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.uname = len(data), 1700000000.5, "someone"
    tar.addfile(info, io.BytesIO(data))


def add_link(tar, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def write_tar(path, rows, extra=()):
    """One shard as img2dataset writes it: pax headers of its own times, key.webp, .txt, .json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i, row in enumerate(rows):
            key = f"{path.stem}{i:04d}"
            add_file(tar, f"{key}.{suffix_of(row)}", row["bytes"])
            caption = " ".join(filter(None, (row["title"], row["description"], *row["tags"])))
            add_file(tar, f"{key}.txt", caption.encode())
            about = {"key": key, "caption": caption, "url": f"https://example.org/{key}"}
            add_file(tar, f"{key}.json", json.dumps(about).encode())
        for name, data in extra:
            add_link(tar, name, data) if isinstance(data, str) else add_file(tar, name, data)


def write_folder(folder, rows):
    """Pictures in sub-folders with metadata.csv."""
    names = []
    for i, row in enumerate(rows):
        name = f"part {i % 3}/picture-{i:04d}.{suffix_of(row)}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(row["bytes"])
        names.append(name)
    with (folder / "metadata.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file_name", "caption", "tags"])
        for name, row in zip(names, rows, strict=True):
            writer.writerow([name, row["title"], ", ".join(row["tags"])])
    return names


def append_csv(folder, *rows):
    with (folder / "metadata.csv").open("a", newline="") as out:
        csv.writer(out).writerows(rows)


def write_hub_parquet(path, pictures, captions, labels, names):
    """One file as Hugging Face's datasets writes it."""
    features = {
        "image": {"_type": "Image"},
        "caption": {"dtype": "string", "_type": "Value"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    about = json.dumps({"info": {"features": features}}).encode()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("caption", pa.string()), ("label", pa.int64())],
        metadata={b"huggingface": about},
    )
    columns = [pa.array(pictures, kind), pa.array(captions), pa.array(labels, pa.int64())]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path)


def read_tables(root, done):
    """Tables of an import: name -> rows as dicts."""
    storage = open_storage(str(root))
    folder = storage.path(done.folder)
    return {name: pq.read_table(f"{folder}/{name}").to_pylist() for name in done.manifest["tables"]}


def files_below(folder):
    """Name -> bytes of every file."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

"""Fingerprint stages over bytes and files, good and bad, through the real lifecycle."""

import hashlib
import io

import imagehash
import numpy as np
import pyarrow as pa
import pytest
from given import run_stage
from PIL import Image

from pipeline.config.images import FingerprintImagesParams
from pipeline.config.ingest import ImageLimits
from pipeline.files import contents
from pipeline.files.contents import stream_contents
from pipeline.files.fetch import FetchPolicy
from pipeline.stages import fingerprint_images, fingerprint_validation_images
from schemas.ingested import IMAGES, VALIDATION_IMAGES

MAX_PIXELS, MAX_BYTES = 10_000, 30_000
PARAMS = FingerprintImagesParams(
    limits=ImageLimits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS), read_retries=0, read_threads=2
)


def encoded(seed, size=(60, 40), kind="JPEG", **options):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(seed):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(seed, exif=exif)


GOOD = {
    "jpeg": encoded(1),
    "png": encoded(2, kind="PNG"),
    "webp": encoded(3, kind="WEBP"),
    "turned": turned(4),
    "ü copy": encoded(1),
}
BAD = {
    "broken": (encoded(5, kind="PNG")[:200], "truncated"),
    "empty": (b"", "empty_bytes"),
    "gif": (encoded(6, kind="GIF"), "unsupported_format"),
    "large": (encoded(7, (101, 100)), "too_many_pixels"),
    "long": (GOOD["jpeg"] + b"\0" * MAX_BYTES, "too_many_bytes"),
}


def rows(folder, mode):
    """Every picture once; where ``mode`` is files, the picture is a file and the row has a uri."""
    found = []
    for name, data in (GOOD | {k: v[0] for k, v in BAD.items()}).items():
        row = {"image_id": name}
        if mode == "bytes":
            row["bytes"] = data
        else:
            path = folder / f"{hashlib.md5(name.encode()).hexdigest()}.bin"
            path.write_bytes(data)
            row["uri"] = str(path) if len(name) % 2 else f"file://{path}"
        found.append(row)
    found.append({"image_id": "absent", "uri": str(folder / "none.jpg")})
    found.append({"image_id": "folder", "uri": str(folder)})
    found.append({"image_id": "protocol", "uri": "gopher://host/a.jpg"})
    found.append({"image_id": "neither"})
    return found


UNREADABLE = {
    "absent": ("unreadable", "FileNotFoundError"),
    "folder": ("unreadable", "IsADirectoryError"),
    "protocol": ("unreadable", "ValueError"),
    "neither": ("missing_bytes", None),
}


def check(good, bad, key):
    assert [r[key] for r in good] == sorted(GOOD, key=str.encode)
    for row in good:
        data = GOOD[row[key]]
        picture = Image.open(io.BytesIO(data))
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (row["num_bytes"], row["format"]) == (len(data), picture.format.lower())
        is_turned = row[key] == "turned"
        assert (row["width"], row["height"]) == ((40, 60) if is_turned else (60, 40))
        assert row["orientation"] == (6 if is_turned else 1)
        upright = picture.transpose(Image.Transpose.ROTATE_270) if is_turned else picture
        assert f"{row['phash'] % 2**64:016x}" == str(imagehash.phash(upright))
        assert len(row["thumbnail"]) == 64 * 64
    expected = {name: (reason, None) for name, (_, reason) in BAD.items()} | UNREADABLE
    assert {r["row_key"]: (r["reason"], r["detail"]) for r in bad} == expected


@pytest.mark.parametrize("mode", ["bytes", "files"])
def test_images_and_reasons(spark, tmp_path, mode):
    _, manifest, found = run_stage(
        spark,
        tmp_path / "root",
        fingerprint_images.STAGE,
        {IMAGES: rows(tmp_path, mode)},
        num_buckets=2 if mode == "files" else 1,
        fingerprint_images=PARAMS,
    )
    check(found["image_fingerprints"], found["rejected_fingerprints"], "image_id")
    line = manifest.ledger[0]
    assert (line.rows_in, line.rows_out) == (len(GOOD) + len(BAD) + 4, len(GOOD))
    assert line.dropped["unreadable"] == 3


def test_validation_images_by_the_same_rules(spark, tmp_path):
    given = [
        row | {"validation_id": row["image_id"], "dataset": "w"} for row in rows(tmp_path, "files")
    ]
    _, manifest, found = run_stage(
        spark,
        tmp_path / "root",
        fingerprint_validation_images.STAGE,
        {VALIDATION_IMAGES: given},
        fingerprint_images=PARAMS,
    )
    names = ("validation_fingerprints", "rejected_validation_fingerprints")
    check(*(found[name] for name in names), "validation_id")
    assert manifest.ledger[0].rows_in == len(given)


def test_an_outage_is_an_error_and_not_a_reason(monkeypatch):
    monkeypatch.setattr(contents, "READ_ROWS", 4)
    uris = pa.chunked_array([["gopher://host/a"] * 5])
    policy = FetchPolicy(seconds=1, retries=0, threads=2)
    with pytest.raises(OSError, match=r"4 files in a row cannot be read, e\.g\. gopher"):
        list(stream_contents(pa.chunked_array([pa.nulls(5, pa.binary())]), uris, 9, policy))
    some = pa.chunked_array([pa.array([None, b"x", None, None, None, b"y"], pa.binary())])
    uris = pa.chunked_array([["gopher://host/a"] * 4 + [None, None]])
    found = list(stream_contents(some, uris, 9, policy))
    assert [type(f) if isinstance(f, Exception) else f for f in found] == [
        ValueError, b"x", ValueError, ValueError, None, b"y",
    ]  # fmt: skip

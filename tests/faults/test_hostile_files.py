"""Hostile pictures, names and uris through the real stages: each has its reason, none stops one."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from given import run_stage
from PIL import Image
from release_given import verify_here
from upstream_given import upstream, with_places

from pipeline.config.dataset import WriteReleaseParams
from pipeline.config.images import FingerprintImagesParams
from pipeline.config.ingest import ImageLimits
from pipeline.kernels.samples import sample_key
from pipeline.runtime.verification import findings_lines
from pipeline.stages import fingerprint_images, write_release
from pipeline.stages.release_check import release_storage
from pipeline.train.release import open_release
from schemas.ingested import IMAGES

pytestmark = pytest.mark.slow
MAX_BYTES = 200_000
READ = FingerprintImagesParams(
    limits=ImageLimits(max_bytes=MAX_BYTES, max_pixels=1_000_000), read_retries=0, read_threads=4
)


def picture(seed, size=(60, 40)):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size)


def encoded(seed, kind="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    picture(seed).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind):
    return encoded(1, kind, save_all=True, append_images=[picture(2), picture(3)])


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width, height, depth, data, before=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, 0 if depth == 16 else 2, 0, 0, 0)
    packed = chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + packed + chunk(b"IEND", b"")


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def with_segment(marker, body, seed):
    plain = encoded(seed)
    return plain[:2] + segment(marker, body) + plain[2:]


def png_with(extra, seed):
    plain = encoded(seed, "PNG")
    return plain[:33] + extra + plain[33:]


BOMB_CHUNK = b"zTXtcomment\0\0" + zlib.compress(b"\0" * (80 << 20), 9)
LOOP = b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\0\0\0\0"
"""A directory of EXIF that is its own child."""
# Name of the file -> content, reason; an empty reason is an image that passes.
FILES = {
    "empty.jpg": (b"", "empty_bytes"),
    "one-byte.jpg": (b"\xff", "unsupported_format"),
    "header-only.jpg": (encoded(10)[:4], "truncated"),
    "half.jpg": (encoded(11)[:-400], "truncated"),
    "half.png": (encoded(12, "PNG")[:-200], "truncated"),
    "half.webp": (encoded(13, "WEBP")[:-100], "truncated"),
    "bomb.png": (png_of(60_000, 60_000, 8, b"\0" * 100_000), "too_many_pixels"),
    "text-bomb.png": (png_with(chunk(BOMB_CHUNK[:4], BOMB_CHUNK[4:]), 14), "decode_error"),
    "long.jpg": (encoded(15) + bytes(MAX_BYTES), "too_many_bytes"),
    "animated.gif": (animated("GIF"), "unsupported_format"),
    "animated.webp": (animated("WEBP"), "animated"),
    "animated.png": (animated("PNG"), "animated"),
    "deep-grey.png": (png_of(8, 8, 16, (b"\0" + b"\1\2" * 8) * 8), "unsupported_mode"),
    "page.jpg": (b"<html><title>404</title></html>" * 9, "unsupported_format"),
    "picture.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
    "script.ps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
    "archive.jpg": (b"PK\3\4" + bytes(400), "unsupported_format"),
    "trailing-junk.png": (encoded(16, "PNG") + b"junk" * 50, ""),
    "is-a-png.jpg": (encoded(17, "PNG"), ""),
    "is-a-jpeg.webp": (encoded(18), ""),
    "no-suffix": (encoded(19, "WEBP"), ""),
    "cmyk.jpg": (encoded(20, mode="CMYK"), ""),
    "grey-alpha.png": (encoded(21, "PNG", "LA"), ""),
    "palette.png": (encoded(22, "PNG", "P"), ""),
    "one-frame.webp": (encoded(23, "WEBP", save_all=True), ""),
    "broken-exif.jpg": (with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff", 24), ""),
    "loop-exif.jpg": (with_segment(0xE1, LOOP, 25), ""),
    "broken-icc.jpg": (with_segment(0xE2, b"ICC_PROFILE\0\1\1" + b"junk" * 30, 26), ""),
    "cut-icc.jpg": (with_segment(0xE2, b"ICC_PROFILE\0\2\x09" + b"junk" * 30, 27), "decode_error"),
    "broken-icc.png": (png_with(chunk(b"iCCP", b"icc\0\0" + b"not deflated"), 28), ""),
    "broken-exif.png": (png_with(chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), 29), ""),
}  # fmt: skip
IDS = {
    "cmyk.jpg": "a.b.c..jpg.tar.gz",
    "no-suffix": "../../etc/passwd",
    "palette.png": "/absolute/ü/\U0001f41f\u202e.png",
    "is-a-png.jpg": "line\nbreak\ttab.png",
    "grey-alpha.png": "long" * 1000,
    "one-frame.webp": ".hidden",
}
"""Names that a tar member must not have; the others are called like their files."""


def rows(folder):
    """Every file as a uri, then uris that lead to no file; and the reason of each image."""
    found, reasons = [], {}
    for i, (name, (data, reason)) in enumerate(FILES.items()):
        path = folder / name
        path.write_bytes(data)
        image_id = IDS.get(name, name)
        found.append({"image_id": image_id, "uri": f"file://{path}" if i % 2 else str(path)})
        reasons[image_id] = (reason, None)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "link.jpg").symlink_to(folder / "is-a-png.jpg")
    uris = {
        "directory": (str(folder), "IsADirectoryError"),
        "missing": (str(folder / "none.jpg"), "FileNotFoundError"),
        "below a file": (str(folder / "half.jpg" / "x"), "NotADirectoryError"),
        "a pipe": (str(folder / "pipe"), "ValueError"),
        "a device": ("/dev/zero", "ValueError"),
        "a link to itself": (str(folder / "loop"), "OSError"),
        "too long": (str(folder / ("x" * 5000)), "OSError"),
        "with a zero": (f"{folder}/a\0b", "ValueError"),
        "empty": ("", "FileNotFoundError"),
        "a command": ("pipe:cat /etc/passwd", "FileNotFoundError"),
        "another protocol": ("https://host/x.jpg", "ValueError"),
        "chained": ("simplecache::s3://b/x", "ValueError"),
        "with a login": ("s3://key:secret@bucket/x.jpg", "ValueError"),
    }
    for image_id, (uri, detail) in uris.items():
        found.append({"image_id": image_id, "uri": uri})
        reasons[image_id] = ("unreadable", detail)
    found.append({"image_id": "a link", "uri": str(folder / "link.jpg")})
    reasons["a link"] = ("", None)
    found.append({"image_id": "nothing at all"})
    reasons["nothing at all"] = ("missing_bytes", None)
    return found, reasons


def test_each_has_its_reason_and_the_rest_is_released(spark, tmp_path):
    given, reasons = rows(tmp_path)
    _, manifest, found = run_stage(
        spark, tmp_path / "prints", fingerprint_images.STAGE, {IMAGES: given},
        fingerprint_images=READ,
    )  # fmt: skip
    bad = {r["row_key"]: (r["reason"], r["detail"]) for r in found["rejected_fingerprints"]}
    assert bad == {name: why for name, why in reasons.items() if why[0]}
    passed = {name for name, why in reasons.items() if not why[0]}
    prints = {row["image_id"]: row for row in found["image_fingerprints"]}
    assert set(prints) == passed
    line = manifest.ledger[0]
    assert line.rows_in == len(given) == line.rows_out + sum(line.dropped.values())
    assert prints["is-a-jpeg.webp"]["format"] == "jpeg"
    assert prints["broken-exif.jpg"]["orientation"] == 1

    storage, contents = released(spark, tmp_path, given, passed)
    assert findings_lines(verify_here(storage)) == ["verified: no mismatch"]
    release = open_release(storage.uri)
    index = release.read_index(0)
    keys = index.keys.to_pylist()
    assert sorted(keys) == sorted(sample_key(name, 0) for name in passed)
    assert all("." not in key and "/" not in key for key in keys)
    by_key = {sample_key(name, 0): data for name, data in contents.items()}
    for place, key in enumerate(keys):
        assert release.read_image(0, index.member(place)) == by_key[key]
    for name in passed:
        assert prints[name]["sha256"] == hashlib.sha256(contents[name]).hexdigest()


def released(spark, folder, given, passed):
    """Release of the images that passed, and image_id -> bytes."""
    paths = {row["image_id"]: row.get("uri") for row in given}
    contents = {}
    for name in sorted(passed):
        with open(paths[name].removeprefix("file://"), "rb") as file:
            contents[name] = file.read()
    images = [{"image_id": name, "bytes": data} for name, data in contents.items()]
    root = folder / "root"
    tables = with_places(root, upstream(images, 1, len(images)) | {IMAGES: given})
    run_stage(spark, root, write_release.STAGE, tables, write_release=WriteReleaseParams())
    return release_storage(str(root)), contents


def test_what_became_of_a_file_since_is_told_by_key(spark, tmp_path):
    """Between fingerprinting and writing; the stage fails, nothing hangs, nothing is published."""
    names = ["swapped", "pipe", "folder", "cut", "grown", "gone"]
    given, images = [], []
    for i, name in enumerate(names):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(encoded(i))
        given.append({"image_id": name, "uri": str(path)})
        images.append({"image_id": name, "bytes": encoded(i)})
    (tmp_path / "swapped.jpg").write_bytes(encoded(99))
    (tmp_path / "cut.jpg").write_bytes(encoded(3)[:-9])
    (tmp_path / "grown.jpg").write_bytes(encoded(4) + b"x" * 10_000)
    for name in ("pipe", "folder", "gone"):
        (tmp_path / f"{name}.jpg").unlink()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    tables = with_places(tmp_path / "root", upstream(images, 2, 3) | {IMAGES: given})
    section = WriteReleaseParams(read_retries=0)
    with pytest.raises(ValueError, match="samples of 2 shards cannot be written") as error:
        run_stage(spark, tmp_path / "root", write_release.STAGE, tables, write_release=section)
    why = {"pipe": "ValueError", "folder": "IsADirectoryError", "gone": "FileNotFoundError"}
    for name in names:
        expected = f"{sample_key(name, 0)} (image {name!r}): {why.get(name, 'sha256 ')}"
        assert expected in str(error.value)
    assert not (tmp_path / "root" / "release" / "CURRENT.json").exists()

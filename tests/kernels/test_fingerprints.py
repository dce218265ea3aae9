"""Fingerprints: bits equal to imagehash, bytes equal to Pillow's resize."""

import hashlib
import io

import imagehash
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from pipeline.kernels.fingerprints import (
    FINGERPRINT_SCHEMA,
    fingerprint_images,
    phash_grey,
)
from pipeline.kernels.images import ImageLimits, decode_image
from pipeline.kernels.resample import (
    _fixed_weights,
    _lanczos_axis,
    lanczos_weights,
    resize_grey,
    resize_nearly,
)

LIMITS = ImageLimits(max_bytes=1 << 22, max_pixels=1 << 22)
# Earlier versions run the passes of tall pictures in another order.
needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="resize order of Pillow 13"
)


def oracle(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return int(str(imagehash.phash(image)), 16)


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def drawing(rng, width, height):
    image = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x = sorted(int(v) for v in rng.integers(0, width + 1, 2))
        y = sorted(int(v) for v in rng.integers(0, height + 1, 2))
        draw.ellipse((x[0], y[0], x[1], y[1]), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def hashes(images):
    got = fingerprint_images(images, LIMITS)
    assert got.reasons == []
    return [value % (1 << 64) for value in got.table["phash"].to_pylist()]


def many_pictures():
    rng = np.random.default_rng(7)
    files = []
    sizes = [(1, 1), (1, 50), (50, 1), (32, 32), (31, 33), (32, 200), (200, 32), (33, 500)]
    sizes += [tuple(int(v) for v in rng.integers(2, 260, 2)) for _ in range(22)]
    for index, (width, height) in enumerate(sizes):
        image = drawing(rng, width, height)
        alpha = image.copy().convert("RGBA")
        alpha.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
        tags = Image.Exif()
        tags[0x0112] = index % 8 + 1
        files += [
            encode(image, "JPEG", quality=int(rng.integers(20, 96)), exif=tags),
            encode(image.convert("CMYK"), "JPEG"),
            encode(image.convert("L"), "JPEG"),
            encode(image, "PNG", exif=tags),
            encode(alpha, "PNG"),
            encode(alpha.convert("LA"), "PNG"),
            encode(image.convert("P"), "PNG"),
            encode(image.quantize(7), "PNG", transparency=bytes(range(0, 210, 30))),
            encode(image.convert("1"), "PNG"),
            encode(alpha, "WEBP", lossless=bool(index % 2)),
        ]
    return files


@needs_pillow_13
@pytest.mark.filterwarnings("ignore:Palette images")
def test_bits_are_those_of_imagehash():
    files = many_pictures()
    assert hashes(files) == [oracle(data) for data in files]


@needs_pillow_13
def test_bits_of_blank_and_symmetric_pictures():
    """Coefficients that tie with the median: their bits are rounding, and still the same."""
    files = []
    for shade in (0, 1, 127, 255):
        files.append(encode(Image.new("L", (70, 90), shade), "PNG"))
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    for array in (ramp, ramp.T, np.flip(ramp), np.minimum(ramp, ramp[:, ::-1]), np.eye(64) * 255):
        files.append(encode(Image.fromarray(array.astype(np.uint8)), "PNG"))
        files.append(encode(Image.fromarray(array.astype(np.uint8)), "JPEG"))
    assert hashes(files) == [oracle(data) for data in files]


@needs_pillow_13
@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 1000),
    size=st.sampled_from([32, 64, 20]), method=st.sampled_from(["lanczos", "box"]),
)  # fmt: skip
def test_resize_is_pillows(width, height, seed, size, method):
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    resampling = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}[method]
    want = Image.fromarray(grey).resize((size, size), resampling)
    np.testing.assert_array_equal(resize_grey(grey, size, method), want)


@needs_pillow_13
def test_sums_near_a_tie_are_pillows():
    """Rows of grey levels whose weighted sums end in .5 and next to it; long rows, whose weights
    need float64."""
    rng = np.random.default_rng(1)
    for height, width in ((40, 64), (64, 40), (90, 3000), (3000, 70), (300, 301), (9, 9000)):
        for levels in ((0, 255), (127, 128), (0, 1)):
            grey = rng.choice(np.array(levels, np.uint8), (height, width))
            want = Image.fromarray(grey).resize((32, 32), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(resize_grey(grey, 32), want)


@pytest.mark.parametrize(("length", "kind"), [(50, np.float32), (352, np.float32), (9000, float)])
def test_both_halves_of_the_sums_are_exact(length, kind):
    """Of real weights and random and worst pixels, against integers; single weights would not be:
    of 640,000 sums some are so near a tie that float32 gives the next grey level."""
    first, fixed = _fixed_weights(length, 32)
    assert lanczos_weights(length, 32).bands[0][2].dtype == kind
    at = np.minimum(first[:, None] + np.arange(fixed.shape[1]), length - 1)
    rng = np.random.default_rng(3)
    for image in (
        rng.integers(0, 256, (20_000 if length == 352 else 200, length), dtype=np.uint8),
        np.where(np.arange(length) % 7 < 3, 255, 0).astype(np.uint8)[None],
        np.full((1, length), 255, np.uint8),
    ):
        products = np.stack([image[:, at[o]] @ fixed[o].astype(np.int64) for o in range(32)], 1)
        want = np.clip((products + (1 << 21)) >> 22, 0, 255)
        np.testing.assert_array_equal(_lanczos_axis(image, 32, 1), want)
        np.testing.assert_array_equal(_lanczos_axis(image.T.copy(), 32, 0), want.T)


@pytest.mark.parametrize(("height", "width"), [(33, 175), (160, 160), (20, 300)])
def test_resizing_nearly_is_two_grey_levels_off_at_most(height, width):
    smooth = 30 + 190 * np.hypot.outer(np.linspace(0, 0.7, height), np.linspace(0, 0.7, width))
    noise = np.random.default_rng(5).integers(64, 192, (height, width))
    for grey in (smooth.astype(np.uint8), noise.astype(np.uint8)):
        found, exact = resize_nearly(grey, 32).astype(int), resize_grey(grey, 32).astype(int)
        assert np.abs(found - exact).max() <= 2
        assert (found == exact).mean() > 0.6


def test_weights_near_a_tie_follow_c(monkeypatch):
    """All rows recomputed in C's order of operations give the same integers."""
    sizes = (33, 100, 257, 400, 1023)
    fast = [_fixed_weights(n, 32)[1] for n in sizes]
    monkeypatch.setattr("pipeline.kernels.resample._TIE", 1.0)
    for n, want in zip(sizes, fast, strict=True):
        np.testing.assert_array_equal(_fixed_weights(n, 32)[1], want)


def test_columns_by_hand():
    tags = Image.Exif()
    tags[0x0112] = 6
    data = encode(drawing(np.random.default_rng(1), 60, 40), "JPEG", exif=tags)
    got = fingerprint_images([data], LIMITS)
    assert got.table.schema.equals(FINGERPRINT_SCHEMA)
    row = got.table.to_pylist()[0]
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["width"], row["height"], row["orientation"]) == (40, 60, 6)
    assert (row["num_bytes"], row["format"], row["is_flat"]) == (len(data), "jpeg", False)
    assert len(row["thumbnail"]) == 64 * 64


def test_rows_and_reasons_cover_the_batch():
    good = encode(drawing(np.random.default_rng(2), 30, 30), "PNG")
    got = fingerprint_images([b"", good, None, b"GIF89a", good], LIMITS)
    assert got.rows.tolist() == [1, 4]
    assert got.rejected_rows.tolist() == [0, 2, 3]
    assert got.reasons == ["empty_bytes", "missing_bytes", "unsupported_format"]
    assert got.table.num_rows == 2
    nothing = fingerprint_images([], LIMITS)
    assert nothing.table.num_rows == 0
    assert nothing.table.schema.equals(FINGERPRINT_SCHEMA)


def test_flat_pictures():
    rng = np.random.default_rng(3)
    blank = np.full((32, 32), 200, dtype=np.uint8)
    noisy = (blank + rng.integers(0, 2, (32, 32))).astype(np.uint8)
    edge = blank.copy()
    edge[:, 11:] = 20
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    faint = blank.copy()
    faint[10:12, 10:12] = 198
    dot = blank.copy()
    dot[10:14, 9:15] = 0
    photo = np.asarray(drawing(rng, 32, 32).convert("L"))
    _, is_flat = phash_grey(np.stack([blank, noisy, edge, ramp, faint, dot, photo]))
    assert is_flat.tolist() == [True, True, True, True, True, False, False]


def test_batch_size_does_not_matter():
    files = many_pictures()[50:80]
    whole = fingerprint_images(files, LIMITS).table
    singles = [fingerprint_images([data], LIMITS).table.to_pylist()[0] for data in files]
    assert whole.to_pylist() == singles


def test_approximate_hashes_are_near_and_all_else_is_equal():
    rng = np.random.default_rng(5)
    tags = Image.Exif()
    tags[0x0112] = 6
    files = [
        encode(drawing(rng, *sides), "JPEG", quality=90, exif=tags)
        for sides in ((400, 300), (130, 90), (63, 64), (40, 700), (9, 8))
    ]
    files.append(encode(drawing(rng, 400, 300), "PNG"))
    exact = fingerprint_images(files, LIMITS).table
    found = fingerprint_images(files, LIMITS, is_approximate=True).table
    for name in set(FINGERPRINT_SCHEMA.names) - {"phash", "thumbnail", "is_flat"}:
        assert found[name].equals(exact[name])
    assert found["width"][0].as_py() == 300
    for one, two in zip(found.to_pylist(), exact.to_pylist(), strict=True):
        assert ((one["phash"] ^ two["phash"]) % 2**64).bit_count() <= 6
        grey = [np.frombuffer(row["thumbnail"], np.uint8).astype(int) for row in (one, two)]
        assert np.abs(grey[0] - grey[1]).mean() < 4
    assert found.slice(5).equals(exact.slice(5))
    scaled = decode_image(files[0], LIMITS, grey=True, luma_side=64).image
    assert min(scaled.size) < 150

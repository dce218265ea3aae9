"""Decoding: every refusal by its reason, orientation once, pixels equal to Pillow's."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.kernels.images import (
    DecodedImage,
    ImageLimits,
    ImageReason,
    Rejection,
    decode_image,
    read_header,
)

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20)


def picture(width=40, height=30, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def reason(data, limits=LIMITS):
    got = decode_image(data, limits)
    assert isinstance(got, Rejection), got
    return got.reason


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
    return head + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT" + b"\0" * 4


def webp_canvas(width, height):
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_header(width, height):
    return (
        b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width) + b"\3" + b"\0" * 9
        + b"\xff\xda\0\2"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "missing_bytes"),
        (b"", "empty_bytes"),
        (b"\xff\xd8\xff" + b"\0" * (1 << 20), "too_many_bytes"),
        (b"GIF89a" + b"\0" * 50, "unsupported_format"),
        (b"%!PS-Adobe", "unsupported_format"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xe0\xff\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"RIFF\xff\0\0\0WEBPVP8 ", "truncated"),
        (b"RIFF\4\0\0\0WEBP", "decode_error"),
        (jpeg_header(0, 5), "decode_error"),
        (png_header(60_000, 60_000), "too_many_pixels"),
        (webp_canvas(16_000, 16_000), "too_many_pixels"),
        (jpeg_header(65_000, 65_000), "too_many_pixels"),
        (png_header(10, 10), "truncated"),
    ],
)
def test_refusals_by_header(data, expected):
    assert reason(data) == expected


def test_no_decoder_is_opened_for_a_bomb(monkeypatch):
    def opened(*args, **kwargs):
        raise AssertionError("a decoder was opened")

    monkeypatch.setattr(Image, "open", opened)
    monkeypatch.setattr("simplejpeg.decode_jpeg_header", opened)
    for bomb in (png_header(1 << 15, 1 << 15), webp_canvas(1 << 14, 1 << 14)):
        assert reason(bomb) == ImageReason.TOO_MANY_PIXELS
    assert reason(jpeg_header(1 << 15, 1 << 15)) == ImageReason.TOO_MANY_PIXELS


def test_pixel_cap_is_inclusive():
    data = encode(picture(40, 30), "PNG")
    assert isinstance(decode_image(data, ImageLimits(1 << 20, 1200)), DecodedImage)
    assert reason(data, ImageLimits(1 << 20, 1199)) == "too_many_pixels"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files(kind, share):
    data = encode(picture(200, 150, seed=3), kind)
    assert reason(data[: int(len(data) * share)]) == "truncated"


def test_damaged_jpeg_is_a_warning_that_can_be_allowed():
    data = bytearray(encode(picture(120, 90), "JPEG"))
    middle = data.rindex(b"\xff\xda") + 200
    data[-2:-2] = b"\x12\x34" * 40
    got = decode_image(bytes(data), LIMITS)
    assert isinstance(got, Rejection)
    assert got.reason == "decoder_warning"
    assert "extraneous" in got.detail
    lenient = ImageLimits(1 << 20, 1 << 20, reject_warnings=False)
    assert isinstance(decode_image(bytes(data), lenient), DecodedImage)
    cut = decode_image(bytes(data[:middle]), lenient)
    assert isinstance(cut, Rejection)
    assert cut.reason == "truncated"


def test_wrong_checksum_in_png():
    data = bytearray(encode(picture(), "PNG"))
    data[19] ^= 1  # the width, which the checksum of IHDR covers
    assert reason(bytes(data)) == "decode_error"


def test_text_chunk_that_inflates_without_end():
    """Pillow raises ValueError here, not one of its own errors."""
    text = b"zTXtcomment\0\0" + zlib.compress(b"\0" * (80 << 20), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    data = encode(picture(), "PNG")
    assert reason(data[:33] + chunk + data[33:]) == "decode_error"


def test_animations():
    frames = [picture(seed=1), picture(seed=2)]
    for kind in ("PNG", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert reason(data) == "animated"
    assert reason(encode(frames[0], "GIF")) == "unsupported_format"


def test_sixteen_bits_are_not_clipped_silently():
    deep = Image.fromarray(np.full((8, 8), 30_000, dtype=np.uint16))
    assert reason(encode(deep, "PNG")) == "unsupported_mode"


def test_format_is_that_of_the_content_and_can_be_narrowed():
    data = encode(picture(), "WEBP")
    assert reason(data, ImageLimits(1 << 20, 1 << 20, formats=("jpeg", "png"))) == (
        "unsupported_format"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("grey", [False, True])
def test_orientation_is_applied_once(kind, orientation, grey):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(picture(33, 20), kind, exif=exif(orientation), **options)
    got = decode_image(data, LIMITS, grey=grey)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert isinstance(got, DecodedImage)
    assert got.orientation == orientation
    assert (got.width, got.height) == expected.size
    mode = "L" if grey else "RGB"
    np.testing.assert_array_equal(np.asarray(got.image.convert(mode)), expected.convert(mode))
    assert ImageOps.exif_transpose(got.image).size == got.image.size


def test_orientation_from_xmp_and_nonsense():
    plain = encode(picture(33, 20), "JPEG")
    packet = b'http://ns.adobe.com/xap/1.0/\0<rdf tiff:Orientation="6"/>'
    with_xmp = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet + plain[2:]
    assert decode_image(with_xmp, LIMITS).orientation == 6
    for value in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0garbage that is long"):
        broken = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(value) + 2) + value + plain[2:]
        assert decode_image(broken, LIMITS).orientation == 1
    odd = encode(picture(33, 20), "JPEG", exif=exif(77))
    assert decode_image(odd, LIMITS).orientation == 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_pixels_are_pillows(progressive, subsampling):
    rng = np.random.default_rng(subsampling)
    for seed in range(8):
        width, height = (int(v) for v in rng.integers(1, 150, 2))
        data = encode(
            picture(width, height, seed=seed), "JPEG", quality=int(rng.integers(10, 98)),
            progressive=progressive, subsampling=subsampling,
        )  # fmt: skip
        want = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(decode_image(data, LIMITS).image, want)
        np.testing.assert_array_equal(
            decode_image(data, LIMITS, grey=True).image, want.convert("L")
        )


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs(mode):
    data = encode(picture(50, 31, mode), "JPEG")
    got = decode_image(data, LIMITS)
    assert got.image.mode == mode
    np.testing.assert_array_equal(got.image, Image.open(io.BytesIO(data)))


def test_headers_agree_with_pillow():
    for kind, options in (("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})):
        for size in ((1, 1), (17, 300), (300, 17)):
            data = encode(picture(*size), kind, **options)
            if kind == "JPEG":
                data = data[:2] + b"\xff" * 3 + data[2:]  # fill bytes before a marker
            header = read_header(data)
            assert (header.width, header.height) == size
    transparent = picture(9, 7).convert("RGBA")
    transparent.putalpha(100)
    header = read_header(encode(transparent, "WEBP", exif=exif(6)))
    assert (header.width, header.height) == (9, 7)


def test_random_damage_never_raises():
    rng = np.random.default_rng(5)
    for kind in ("JPEG", "PNG", "WEBP"):
        good = encode(picture(60, 40), kind, exif=exif(3))
        for _ in range(150):
            bad = bytearray(good)
            for at in rng.integers(0, len(bad), 4):
                bad[at] = rng.integers(0, 256)
            assert isinstance(decode_image(bytes(bad), LIMITS), DecodedImage | Rejection)


def test_limits_are_checked():
    with pytest.raises(ValueError, match="max_pixels"):
        ImageLimits(1, 1 << 40)
    with pytest.raises(ValueError, match="max_bytes"):
        ImageLimits(0, 1)
    with pytest.raises(ValueError, match="formats"):
        ImageLimits(1, 1, formats=("gif",))

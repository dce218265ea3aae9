"""Images of the trainer: what decodes, what is refused, crops within their bounds."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.train.images import choose_crop, crop_resized, crop_uniforms, decode
from pipeline.train.release import CorruptSampleError


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_decode_formats_and_transparency():
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
        pixels = decode(encode(red, kind), suffix, 100)
        assert pixels.shape == (6, 8, 3)
        assert abs(int(pixels[3, 3, 0]) - 255) < 3
    clear = encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG")
    assert (decode(clear, "png", 100) == 255).all()
    grey = encode(Image.new("L", (4, 4), 7), "JPEG")
    assert decode(grey, "jpg", 100).shape == (4, 4, 3)
    cmyk = encode(Image.new("CMYK", (4, 4)), "JPEG")
    assert decode(cmyk, "jpg", 100).shape == (4, 4, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff\xd8\xff\xe0", b"RIFF0000WEBP"])
def test_garbage_is_corrupt(data, suffix):
    with pytest.raises(CorruptSampleError):
        decode(data, suffix, 100)


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("png", "PNG")])
def test_pixel_cap_holds_before_decoding(suffix, kind, monkeypatch):
    data = encode(Image.new("RGB", (40, 40)), kind)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(CorruptSampleError, match="40 x 40 pixels"):
        decode(data, suffix, 1599)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_crops_fit_and_keep_their_range(height, width, epoch):
    box = choose_crop(height, width, crop_uniforms(0, epoch, "k", 0), 0.08, 4 / 3)
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height >= 1 <= box.width
    if min(height, width) > 60 and max(height, width) / min(height, width) < 4 / 3:
        assert 0.07 < box.height * box.width / (height * width) <= 1
        assert 0.72 < box.width / box.height < 1.4


def test_crop_by_hand():
    """Whole area, aspect 1: the middle draw leaves the box where it must be."""
    u = np.array([[1.0, 0.5, 0.0, 0.0]])
    assert choose_crop(10, 10, u, 0.08, 4 / 3) == (0, 0, 10, 10)
    assert choose_crop(5, 50, np.ones((1, 4)) * 0.99, 0.08, 4 / 3) == (0, 21, 5, 7)


def test_crop_is_keyed():
    first = crop_uniforms(0, 0, "a", 0)
    assert (first == crop_uniforms(0, 0, "a", 0)).all()
    for other in ((1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1)):
        assert (first != crop_uniforms(*other)).all()


def test_crop_resized_cuts_the_box():
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:10, 4:14] = (9, 8, 7)
    out = crop_resized(
        pixels,
        choose_crop(20, 20, np.zeros((1, 4)), 1, 1)._replace(top=5, left=4, height=5, width=10),
        6,
    )
    assert out.shape == (3, 6, 6)
    assert out.flatten(1).unique(dim=1).flatten().tolist() == [9, 8, 7]

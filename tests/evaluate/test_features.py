"""Preprocessing as the export says; features alike on any number of processes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import timm
import torch
from learning_runs import ALONE
from planted_release import picture
from torchvision.transforms import v2

from pipeline.evaluate.export import open_export, own_release
from pipeline.evaluate.features import encode, extract, head_arrays
from pipeline.evaluate.labels import to_ragged
from pipeline.evaluate.preprocess import Preprocess, preprocess_of
from pipeline.evaluate.sets import File, ImageSet
from pipeline.train.distributed import World
from pipeline.train.release import CorruptSampleError

FIXED = Preprocess(32, 0.875, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2), 10_000)


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (33, 33), (20, 24), (32, 47)])
def test_cut_is_torchvisions_resize_and_centre_crop(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    resize = v2.Resize(36, interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    expected = v2.CenterCrop(32)(resize(image))
    assert torch.equal(FIXED.cut(pixels), expected)


def test_normalise_is_torchvisions():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    expected = v2.Normalize(FIXED.mean, FIXED.std)(images.float() / 255)
    assert torch.allclose(FIXED.normalise(images), expected, atol=1e-6)


def test_preprocessing_of_an_export_is_fixed_and_strict(natural_run):
    export = open_export(str(natural_run / "export"), 0, ALONE)
    assert (export.preprocess.size, export.preprocess.crop) == (32, 1.0)
    assert export.preprocess.mean == (0.5, 0.5, 0.5)
    for change in ({"crop_pct": None}, {"interpolation": "bicubic"}, {"crop_mode": "squash"}):
        cfg = {**export.config["pretrained_cfg"], **change}
        cfg = {k: v for k, v in cfg.items() if v is not None}
        with pytest.raises(ValueError, match="Pretrain again"):
            preprocess_of({**export.config, "pretrained_cfg": cfg}, "here")


def test_only_the_release_that_was_trained_on_is_taken(natural_run, planted, permuted):
    export = open_export(str(natural_run.parent), 0, ALONE)
    assert own_release(export, str(planted)).num_labels == 16
    with pytest.raises(ValueError, match="or pretrain on this one"):
        own_release(export, str(permuted))


def images_of(num: int, corrupt: frozenset[int] = frozenset()) -> ImageSet:
    files = [picture(np.array([i % 16]), np.random.default_rng(i)) for i in range(num)]

    def read(i: int) -> File:
        if i in corrupt:
            raise CorruptSampleError("gone")
        return File(files[i], "png")

    ids = [f"{i:03d}" for i in range(num)]
    return ImageSet("s", ids, np.arange(num) % 16, tuple("abcdefghijklmnop"), to_ragged([]), read)


@dataclass(frozen=True)
class Threads(World):
    """Processes played by threads, which exchange tensors where gloo would."""

    box: list = field(default_factory=list)
    gate: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def gather(self, value):
        self.box[self.rank] = value
        self.gate.wait()
        parts = list(self.box)
        self.gate.wait()
        return parts


def on_world(size: int, work) -> list:
    box, gate, out = [None] * size, threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        with torch.inference_mode():
            out[rank] = work(Threads(rank, size, torch.device("cpu"), box, gate))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_features_are_the_same_bits_on_any_world_and_padding_is_gone(natural_run):
    export = open_export(str(natural_run / "export"), 0, ALONE)
    images = images_of(37, frozenset({5, 36}))

    def work(world):
        encoders = [export.model, export.random]
        return extract(encoders, images, export.preprocess, 8, world, lambda *_: None, 0.1)

    alone = work(ALONE)
    assert alone.rows.tolist() == [i for i in range(37) if i not in (5, 36)]
    assert alone.num_corrupt == 2
    assert [v.shape for v in alone.vectors] == [(35, 64), (35, 64)]
    for size in (2, 3, 7):
        for found in on_world(size, work):
            assert np.array_equal(found.rows, alone.rows)
            for a, b in zip(found.vectors, alone.vectors, strict=True):
                assert np.array_equal(a, b)


def test_features_and_head_are_the_model(natural_run):
    export = open_export(str(natural_run / "export"), 0, ALONE)
    images = images_of(9)
    vectors = extract([export.model], images, export.preprocess, 4, ALONE, lambda *_: None, 0)
    weight, bias = head_arrays(export.model)
    pixels = torch.stack([export.preprocess.load(*images.read(i)) for i in range(9)])
    with torch.inference_mode():
        expected = export.model(export.preprocess.normalise(pixels)).numpy()
    assert vectors.vectors[0] @ weight.T + bias == pytest.approx(expected, abs=1e-4)


def test_a_head_that_is_a_convolution_is_read_the_same_way():
    """timm writes ResNet-v2's linear layer as one."""
    model = timm.create_model("resnetv2_50x1_bit", num_classes=7).eval()
    torch.nn.init.normal_(model.get_classifier().weight)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weight, bias = head_arrays(model)
    with torch.inference_mode():
        expected = model(x).numpy()
    assert weight.shape == (7, 2048)
    assert encode(model, x).numpy() @ weight.T + bias == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_progress_and_too_many_unreadable_images(natural_run):
    export = open_export(str(natural_run / "export"), 0, ALONE)
    told = []
    given = (export.preprocess, 4, ALONE, lambda *x: told.append(x))
    extract([export.random], images_of(9), *given, 0.0)
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match=r"s: 2 of 9 images cannot be read, allowed 10\.0%"):
        extract([export.random], images_of(9, frozenset({1, 2})), *given, 0.1)


def test_a_damaged_file_counts_as_unreadable(natural_run):
    export = open_export(str(natural_run / "export"), 0, ALONE)
    images = images_of(5)

    def read(i: int) -> File:
        file = images.read(i)
        return file._replace(data=file.data[:60]) if i == 2 else file

    broken = replace(images, read=read)
    found = extract([export.random], broken, export.preprocess, 2, ALONE, lambda *_: None, 0.5)
    assert found.rows.tolist() == [0, 1, 3, 4]

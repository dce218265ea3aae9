"""MFU: peaks by the driver's names, and the log's line only where the peak is known."""

from __future__ import annotations

import pytest
import torch

from pipeline.train import logs
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset
from pipeline.train.distributed import World
from pipeline.train.flops import device_peak, peak_flops, utilisation
from pipeline.train.logs import Window, Work
from pipeline.train.release import open_release
from pipeline.train.trainer import Trainer

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("Tesla V100-SXM2-32GB", 125e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA B200", 2.25e15),
        ("NVIDIA GB200", None),
        ("NVIDIA GeForce RTX 3090", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_peaks(name, peak):
    assert peak_flops(name) == peak


def test_the_papers_rate_is_a_fifth_of_a_v100():
    """Table 6: 231 images/s of B/16 at 224 with 17.56 billion multiply-adds."""
    share = utilisation(64 * 231, round(6 * 17.563828224e9), 64, 125e12)
    assert share == pytest.approx(0.195, abs=5e-4)


def test_no_peak_for_a_cpu_or_in_full_precision():
    assert device_peak(torch.device("cpu"), torch.bfloat16) is None
    assert device_peak(torch.device("cuda", 0), torch.float32) is None


@pytest.mark.parametrize("work", [None, Work(1000, 5000.0)])
def test_a_line_of_the_log(release_root, make_params, monkeypatch, work):
    params = make_params()
    now = iter([100.0, 104.0, 104.0])
    monkeypatch.setattr(logs.time, "perf_counter", lambda: next(now))
    window = Window(ALONE, 10, 4, work)
    trainer = Trainer(params, 5, ALONE)
    dataset = ShardDataset(open_release(str(release_root)), params, 0, 1, Position())
    batch = dataset.load(dataset.plan(0), 0)
    window.add(batch, trainer.step(batch, 1e-3), wait_seconds=1.0)
    record = window.close(trainer, 1e-3)
    assert record["images_per_second"] == 2.0
    assert record["images_per_second_per_device"] == 2.0
    assert record["data_wait_percent"] == 25.0
    assert record["lr"] == 1e-3
    assert record["grad_norm"] > 0
    assert (record["corrupt_images"], record["skipped_steps"]) == (0, 0)
    assert record["memory_mib"] > 10
    if work is None:
        assert "mfu" not in record
    else:
        assert record["mfu"] == pytest.approx(2.0 * 1000 / 5000)

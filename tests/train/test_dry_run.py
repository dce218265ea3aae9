"""The dry run's arithmetic, its memory trace, and the job that prints it."""

from __future__ import annotations

import re

import pytest

from pipeline.config.load import load_config, recipe_names
from pipeline.runtime.pretraining import parse, run_pretraining
from pipeline.train import dry_run as module
from pipeline.train.dry_run import Cluster, Corpus, corpus_of, dry_run, text_of
from pipeline.train.estimates import network_seconds, rates_of, ring_bytes
from pipeline.train.memory import Memory, memory_of
from pipeline.train.release import open_release

PAPER = Corpus("the paper's size", 1_329_000_000, 18_000, 132_900, 100_000)


@pytest.fixture
def untraced(monkeypatch):
    """The trace of a large model takes seconds; here it is not what is tested."""
    monkeypatch.setattr("pipeline.train.memory.trace_step", lambda *_: 9 * 2**30)


@pytest.fixture
def unbuilt(monkeypatch):
    """No model at all."""
    monkeypatch.setattr(module, "memory_of", lambda *_: Memory(4, 4, 8, 0, None, None))
    monkeypatch.setattr(module, "forward_macs", lambda *_: 10**10)


def flat(sections) -> dict[str, str]:
    return {name: value for rows in sections.values() for name, value in rows}


def test_the_papers_vit(untraced):
    """SPEC A8 and B13, research figures: 334,463 steps, 398.6 MB, 697 MB, 56 ms, 2.1 days."""
    told = flat(dry_run(load_config("paper").train, PAPER, Cluster()))
    assert told["steps"] == "334,463"
    assert told["global batch"].startswith("8,192 = 128 x 1 x 64")
    assert told["parameters"] == "99.64 million"
    assert told["multiply-adds an image"] == "17.58 billion forward"
    rates = {0: "0", 5_000: "0.0004", 10_000: "0.0008", 172_231: "0.0004", 334_463: "0"}
    assert {s: told[f"step {s:,}"] for s in rates} == rates
    assert told["optimiser state"] == "0.74 GiB"
    assert told["activations of 128 images, 34 bytes x tokens x width x blocks"] == "7.36 GiB"
    assert told["peak of a step of 128 images, traced"] == "9.00 GiB"
    assert told["gradients a step"] == "398.6 MB"
    assert told["sent by a device, one ring over all"] == "784.7 MB"
    assert told["sent by a machine, summed inside first"] == "697.5 MB"
    assert told["at 100 Gb/s a machine"] == "55.8 ms a step"
    assert told["shards"] == "132,900, 259.6 a loader process"
    (v100,) = [v for n, v in told.items() if "V100" in n]
    assert v100.startswith("2d03h, step 554 ms, reads 14,784 images/s = 1.48 GB/s")


def test_the_papers_resnext(unbuilt):
    """SPEC A9: 216,309 steps after 15,000, 192 images a device, first halving at 25,816."""
    params = load_config("paper", [], None, "resnext101").train
    told = flat(dry_run(params, PAPER, Cluster()))
    assert told["of them warm-up, main phase"] == "15,000, 216,309"
    assert told["global batch"].startswith("12,288 = 192 x 1 x 64")
    assert (told["step 25,815"], told["step 25,816"]) == ("1.44", "0.72")
    assert told["step 7,500"] == "0.72"


def test_bit_shows_its_drops(unbuilt):
    told = flat(dry_run(load_config("tiny", [], None, "bit_r50x1").train, PAPER, Cluster()))
    steps = 90 * 1_329_000_000 / 4096
    first = round(steps / 3)
    assert (told[f"step {first:,}"], told[f"step {first + 1:,}"]) == ("0.48", "0.048")


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="48 processes do not divide"):
        dry_run(load_config("paper").train, PAPER, Cluster(devices=48))


def test_memory_is_traced_and_grows_with_the_batch():
    """The difference of two batches is near the estimate; weights and states are exact."""
    params = load_config("tiny", ["train.model.image_size=64", "train.model.width=64"]).train
    small, large = (memory_of(params, 10, batch, 1) for batch in (64, 256))
    assert small.optimizer == 2 * small.parameters == 2 * small.gradients
    assert small.traced is not None
    assert large.traced is not None
    grown, expected = large.traced - small.traced, large.estimated - small.estimated
    assert expected == 192 * 65 * 64 * 2 * 34
    assert expected / 2 < grown < 2 * expected
    again = params.run.model_copy(update={"activation_checkpointing": True})
    less = memory_of(params.model_copy(update={"run": again}), 10, 256, 1)
    assert less.traced < large.traced
    assert less.estimated < large.estimated


def test_fsdp_cuts_what_is_kept():
    params = load_config("tiny", ["train.run.parallel=fsdp"]).train
    part, whole = memory_of(params, 10, 4, 8), memory_of(load_config("tiny").train, 10, 4, 8)
    assert part.parameters == -(-whole.parameters // 8)
    assert part.traced is None


def test_arithmetic_by_hand():
    assert ring_bytes(100, 4) == 150
    assert ring_bytes(100, 1) == 0
    assert network_seconds(10**9, 2, 8) == 1.0
    stated, a100, _ = rates_of(load_config("tiny").train.model, 10**12, (7.0,))
    assert stated == (7.0, "as stated")
    assert a100.images_per_second == pytest.approx(0.4 * 312)


def test_a_releases_own_sizes(release_root, make_params):
    release = open_release(str(release_root))
    corpus = corpus_of(release, make_params(), 2)
    assert (corpus.images, corpus.labels, corpus.shards) == (32, 5, 3)
    assert corpus.image_bytes == sum(s.num_bytes for s in release.shards) / 32


def test_the_job_needs_no_release_and_no_network(unbuilt, capsys):
    options = ["--dry-run", "--preset", "paper", "--images", "2.658e9", "--labels", "10"]
    run_pretraining(parse(None, [*options, "--images-per-second", "500"]))
    told = capsys.readouterr().out
    assert re.search(r"steps +658,926\n", told)
    assert "as stated: 2,658,000,000 images an epoch" in told
    assert re.search(r"500 images/s a device, as stated +1d22h", told)
    run_pretraining(parse(None, ["--dry-run", "--preset", "paper"]))
    assert re.search(r"steps +334,463\n", capsys.readouterr().out)


def test_the_job_reads_a_release(release_root, capsys):
    options = ["--dry-run", "--preset", "tiny", "--release", str(release_root)]
    run_pretraining(parse(None, [*options, "--world-size", "2"]))
    told = capsys.readouterr().out
    assert "32 images an epoch" in told
    assert "2 on 1 machines" in told


def test_every_recipe_fits_64_devices():
    for name in recipe_names():
        params = load_config("paper", [], None, name).train
        module.check_sizes(params, 64)
        assert text_of({"schedule": module._schedule(params, PAPER)})

"""What a run on any number of devices would do and need, found out on this machine's CPU."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.train import TrainParams
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset, check_sizes
from pipeline.train.estimates import (
    LOADER_IMAGES_PER_CORE,
    NODE_GIGABITS,
    network_seconds,
    rates_of,
    ring_bytes,
)
from pipeline.train.flops import TRAIN_OVER_FORWARD, forward_macs
from pipeline.train.logs import duration
from pipeline.train.memory import Memory, memory_of
from pipeline.train.release import Release
from pipeline.train.schedule import lr_at, main_steps, milestone_steps, peak_lr

PAPER_IMAGES, PAPER_LABELS = 1_329_000_000, 18_000
"""Size of Annotations-1.3B. Source: paper section 3.2."""

Section = list[tuple[str, str]]


@dataclass(frozen=True)
class Corpus:
    """What a run reads.

    Attributes:
        source: where the sizes are from.
        images: shown in an epoch.
        labels: width of the head.
        shards: number of files.
        image_bytes: mean of one stored image.
    """

    source: str
    images: int
    labels: int
    shards: int
    image_bytes: float


@dataclass(frozen=True)
class Cluster:
    """What a run would be carried out on.

    Attributes:
        devices: processes, one a device.
        devices_per_node: devices of one machine.
        images_per_second: rates of one device to plan with, besides those known.
    """

    devices: int = 64
    devices_per_node: int = 8
    images_per_second: tuple[float, ...] = ()

    @property
    def nodes(self) -> int:
        """Machines."""
        return -(-self.devices // self.devices_per_node)


def corpus_of(release: Release, params: TrainParams, devices: int) -> Corpus:
    """Sizes of a release, from its manifest; the sampling weights are read where they count."""
    dataset = ShardDataset(release, params, 0, devices, Position())
    stored = sum(shard.num_bytes for shard in release.shards)
    return Corpus(
        source=f"{release.storage.uri} ({release.manifest_sha256[:12]})",
        images=dataset.images_per_epoch,
        labels=release.num_labels,
        shards=len(release.shards),
        image_bytes=stored / max(release.num_samples, 1),
    )


def dry_run(params: TrainParams, corpus: Corpus, cluster: Cluster) -> dict[str, Section]:
    """Sections of names and values, in the order to print.

    Args:
        params: the recipe.
        corpus: what is read.
        cluster: what it would run on.

    Raises:
        ValueError: sizes that do not divide, as at the start of a run.

    Source: SPEC B13. Times and rates are arithmetic on the rates named beside them; nothing here
    was measured on an accelerator.
    """
    check_sizes(params, cluster.devices)
    share = params.data.global_batch // cluster.devices
    micro = min(params.run.micro_batch or share, share)
    memory = memory_of(params, corpus.labels, micro, cluster.devices)
    macs = forward_macs(params.model, corpus.labels)
    whole = memory.parameters * (cluster.devices if params.run.parallel == "fsdp" else 1)
    return {
        "run": [
            ("model", f"{params.model.name} at {params.model.image_size} pixels"),
            ("parameters", f"{whole / 4e6:,.2f} million"),
            ("multiply-adds an image", f"{macs / 1e9:,.2f} billion forward"),
            ("corpus", f"{corpus.source}: {corpus.images:,} images an epoch"),
            ("labels", f"{corpus.labels:,}"),
            ("devices", f"{cluster.devices} on {cluster.nodes} machines"),
            ("global batch", f"{params.data.global_batch:,} = {micro} x {share // micro} x "
             f"{cluster.devices} (micro-batch x accumulation x devices)"),
        ],
        "schedule": _schedule(params, corpus),
        "learning rate": _rates(params, corpus),
        "memory of a device": _memory(memory, micro),
        "communication": _communication(whole, cluster),
        "reading": _reading(params, corpus, cluster),
        "time if nothing waits": _time(params, corpus, cluster, TRAIN_OVER_FORWARD * 2 * macs),
    }  # fmt: skip


def _schedule(params: TrainParams, corpus: Corpus) -> Section:
    data, schedule = params.data, params.schedule
    main = main_steps(schedule, corpus.images, data.global_batch)
    total = schedule.warmup_steps + main
    an_epoch = corpus.images // (data.global_batch * data.lanes) * data.lanes
    left_out = corpus.images - an_epoch * data.global_batch
    return [
        ("steps", f"{total:,}"),
        ("of them warm-up, main phase", f"{schedule.warmup_steps:,}, {main:,}"),
        ("steps an epoch", f"{an_epoch:,} ({left_out:,} images left out, others each epoch)"),
        ("epochs", f"{total / an_epoch:.3f}, main phase {main / an_epoch:.3f}"),
        ("images shown", f"{total * data.global_batch:,}"),
    ]


def _rates(params: TrainParams, corpus: Corpus) -> Section:
    schedule = params.schedule
    main = main_steps(schedule, corpus.images, params.data.global_batch)
    peak, warmup = peak_lr(params.optimizer, params.data.global_batch), schedule.warmup_steps
    steps = {0, warmup // 2, warmup, warmup + main // 4, warmup + main // 2}
    steps |= {warmup + 3 * main // 4, warmup + main - 1, warmup + main}
    if schedule.decay == "plateaus":
        first = warmup + -(-main // schedule.plateaus)
        steps |= {first - 1, first}
    if schedule.decay == "milestones":
        steps |= {m + after for m in milestone_steps(schedule, main) for after in (0, 1)}
    return [(f"step {s:,}", f"{lr_at(s, schedule, peak, main):.4g}") for s in sorted(steps)]


def _memory(memory: Memory, micro: int) -> Section:
    lines = [
        ("weights", _gib(memory.parameters)),
        ("gradients", _gib(memory.gradients)),
        ("optimiser state", _gib(memory.optimizer)),
        ("average of the weights", _gib(memory.average)),
    ]
    if memory.estimated is not None:
        about = f"activations of {micro} images, 34 bytes x tokens x width x blocks"
        lines.append((about, _gib(memory.estimated)))
    if memory.traced is not None:
        lines.append((f"peak of a step of {micro} images, traced", _gib(memory.traced)))
    return lines


def _communication(gradient_bytes: int, cluster: Cluster) -> Section:
    """Traffic of DDP; FSDP in bfloat16 moves as much: two gatherings of weights at 2 bytes and one
    sum of gradients at 4."""
    inside = ring_bytes(gradient_bytes, cluster.devices)
    between = ring_bytes(gradient_bytes, cluster.nodes)
    lines = [
        ("gradients a step", f"{gradient_bytes / 1e6:,.1f} MB"),
        ("sent by a device, one ring over all", f"{inside / 1e6:,.1f} MB"),
        ("sent by a machine, summed inside first", f"{between / 1e6:,.1f} MB"),
    ]
    for gigabits in NODE_GIGABITS:
        seconds = network_seconds(gradient_bytes, cluster.nodes, gigabits)
        lines.append((f"at {gigabits} Gb/s a machine", f"{1000 * seconds:,.1f} ms a step"))
    return lines


def _reading(params: TrainParams, corpus: Corpus, cluster: Cluster) -> Section:
    workers = max(params.run.workers, 1)
    readers = cluster.devices * workers
    main = main_steps(params.schedule, corpus.images, params.data.global_batch)
    shown = (params.schedule.warmup_steps + main) * params.data.global_batch
    return [
        ("loader processes", f"{readers:,} ({workers} a device)"),
        ("shards", f"{corpus.shards:,}, {corpus.shards / readers:,.1f} a loader process"),
        ("bytes an image", f"{corpus.image_bytes:,.0f}"),
        ("read an epoch", f"{corpus.images * corpus.image_bytes / 1e12:,.2f} TB"),
        ("read in the run", f"{shown * corpus.image_bytes / 1e12:,.2f} TB"),
    ]


def _time(params: TrainParams, corpus: Corpus, cluster: Cluster, flops_per_image: int) -> Section:
    batch = params.data.global_batch
    steps = params.schedule.warmup_steps + main_steps(params.schedule, corpus.images, batch)
    lines = []
    for rate in rates_of(params.model, flops_per_image, cluster.images_per_second):
        together = rate.images_per_second * cluster.devices
        bytes_per_second = together * corpus.image_bytes
        cores = rate.images_per_second / LOADER_IMAGES_PER_CORE
        lines.append((
            f"{rate.images_per_second:,.0f} images/s a device, {rate.source}",
            f"{duration(steps * batch / together)}, step {1000 * batch / together:,.0f} ms, "
            f"reads {together:,.0f} images/s = {bytes_per_second / 1e9:,.2f} GB/s, "
            f"{cores:.1f} loader cores a device",
        ))  # fmt: skip
    return lines


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"


def text_of(sections: dict[str, Section]) -> str:
    """The sections as lines to print."""
    lines = []
    for title, rows in sections.items():
        width = max(len(name) for name, _ in rows)
        lines += [f"{title}:", *(f"  {name:<{width}}  {value}" for name, value in rows), ""]
    return "\n".join(lines)

"""What a Spark session has written and spilled so far, by its own status store."""

from __future__ import annotations

from typing import Any, NamedTuple

import psutil


class Costs(NamedTuple):
    """Sums over what a session has run.

    Attributes:
        shuffle_bytes: written to shuffle files, as compressed there.
        spilled_bytes: written to disk because memory was short, as compressed there.
        spilled_memory_bytes: size in memory of what was spilled.
        cpu_seconds: user and system time of this process, Java and the Python workers.
    """

    shuffle_bytes: int
    spilled_bytes: int
    spilled_memory_bytes: int
    cpu_seconds: float

    def since(self, before: Costs) -> Costs:
        """What was added after an earlier look."""
        return Costs(*(now - then for now, then in zip(self, before, strict=True)))


def costs_of(spark: Any) -> Costs:
    """Look at the session's store. Stages are added up: it keeps the last 1,000 of them."""
    context = spark.sparkContext._jsc.sc()
    context.listenerBus().waitUntilEmpty()
    store = context.statusStore()
    defaults = (getattr(store, f"stageList$default${n}")() for n in range(2, 6))
    stages = store.stageList(None, *defaults)
    found = [stages.apply(at) for at in range(stages.size())]
    return Costs(
        sum(stage.shuffleWriteBytes() for stage in found),
        sum(stage.diskBytesSpilled() for stage in found),
        sum(stage.memoryBytesSpilled() for stage in found),
        _cpu_seconds(),
    )


def _cpu_seconds() -> float:
    """Of this process and those below it, with those that have ended and were waited for."""
    root = psutil.Process()
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total

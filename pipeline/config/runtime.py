"""Where and how big a run is. None of it may change what a run computes."""

from __future__ import annotations

import os

from pydantic import Field

from pipeline.config.base import Params

_MEMORY = r"^[1-9]\d*[mgtMGT]$"


class RuntimeParams(Params):
    """Size of the machine or cluster; tables and releases are the same whatever stands here."""

    master: str = ""
    """Spark master; empty: local with `cores` cores, or what spark-submit was told."""
    cores: int = Field(0, ge=0)
    """Cores of a local run; 0: all that this process may use."""
    driver_memory: str = Field("3g", pattern=_MEMORY)
    """Heap of the driver, which in a local run does all of Java's work."""
    java_options: str = "-XX:+UseParallelGC"
    """Options of a local run's Java: the collector with the least work, as nobody waits for pauses.
    Short runs gain by -XX:TieredStopAtLevel=1 (less compiling), long ones lose by it. Give
    -XX:ReservedCodeCacheSize=240m beside it: that level's own 48 MB are full after some five
    minutes of Spark jobs, and then Java interprets."""
    worker_memory: str = Field("2g", pattern=_MEMORY)
    """Heap of each executor on a cluster, unless spark-submit says otherwise."""
    worker_python_memory: str = Field("4g", pattern=_MEMORY)
    """Room for each executor's Python and Arrow processes beside its heap, on a cluster."""
    num_buckets: int = Field(8, ge=1, le=1 << 20)
    """Files of every image-level table: the unit of parallel work of batchwise stages."""
    shuffle_partitions: int = Field(8, ge=1, le=1 << 20)
    """Partitions of a shuffle of relational stages, before adaptive execution merges small ones."""
    arrow_batch_rows: int = Field(16384, ge=1)
    """Rows of an Arrow batch between Java and Python."""

    def local_cores(self) -> int:
        """Cores of a local run: `cores`, or those that the scheduler gives this process."""
        if self.cores:
            return self.cores
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

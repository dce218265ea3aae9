"""Counting the samples of one shard by licence, source and the like, in bounded room."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

OTHER = "(other)"
FREE_TEXT = ("licence", "source")
MAX_VALUES = 256
"""Values of free text that a shard reports: a source that differs for every image must not make the
statistics as long as the corpus. Shards do not depend on the machine, so neither does this."""

STATISTICS_DDL = (
    "array<struct<kind:string,value:string,num_images:bigint,num_samples:bigint,num_bytes:bigint>>"
)


class Tally:
    """Sums over the samples of a shard.

    Attributes:
        num_samples: added so far.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self._sums: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(_zeros))

    def add(self, is_first: bool, num_bytes: int, **values: str) -> None:
        """Add a sample.

        Args:
            is_first: whether it is the first copy of its image.
            num_bytes: size of the image.
            values: its value of each kind.
        """
        self.num_samples += 1
        for kind, value in values.items():
            sums = self._sums[kind][value]
            sums[0] += is_first
            sums[1] += 1
            sums[2] += num_bytes

    def rows(self) -> list[dict[str, Any]]:
        """One row a kind and value, sorted; rare ones of free text as ``(other)``."""
        rows = []
        for kind, by_value in sorted(self._sums.items()):
            ranked = sorted(by_value.items(), key=lambda item: (-item[1][1], item[0]))
            room = MAX_VALUES if kind in FREE_TEXT else len(ranked)
            kept = {value: list(sums) for value, sums in ranked[:room]}
            for _, sums in ranked[room:]:
                other = kept.setdefault(OTHER, _zeros())
                other[:] = [a + b for a, b in zip(other, sums, strict=True)]
            names = ("num_images", "num_samples", "num_bytes")
            for value, sums in sorted(kept.items()):
                rows.append({"kind": kind, "value": value} | dict(zip(names, sums, strict=True)))
        return rows


def _zeros() -> list[int]:
    return [0, 0, 0]

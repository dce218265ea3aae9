"""What a check found: mismatches by kind, all of them counted, some of them told."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

MAX_TOLD = 20
"""Mismatches of one kind that are told of one shard or file; all are counted."""
_MAX_TEXT = 200


class Mismatch(NamedTuple):
    """One place where a release is not what it says.

    Attributes:
        kind: what differs, e.g. ``image_sha256``.
        where: file, and sample or row in it.
        found: in words.
        expected: in words.
    """

    kind: str
    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: found {self.found}, expected {self.expected}"


class Findings:
    """Mismatches of a check.

    Attributes:
        counts: number by kind.
        told: at most ``MAX_TOLD`` of a kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[Mismatch] = []

    def add(self, kind: str, where: str, found: object, expected: object) -> None:
        """Note a mismatch."""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_TOLD:
            self.told.append(Mismatch(kind, where, _text(found), _text(expected)))

    def expect(self, kind: str, where: str, found: object, expected: object) -> bool:
        """Note a mismatch unless both are equal; returns whether they are."""
        if found == expected:
            return True
        self.add(kind, where, found, expected)
        return False

    def rows(self) -> list[dict[str, Any]]:
        """What is told, as dicts."""
        return [mismatch._asdict() for mismatch in self.told]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."

"""Side files of a re-issued release: the old ones, less what was taken out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipeline.files.storage import Storage
from pipeline.stages.release_about import CROISSANT, DESCRIBED, LINEAGE, ReleaseContents, json_bytes
from pipeline.stages.release_files import describe, licences_page

_KINDS = {
    "suffixes": "suffix", "labels_per_image": "num_labels", "licences": "licence",
    "sources": "source",
}  # fmt: skip
_SUMS = ("num_images", "num_samples", "num_bytes")
Rows = list[dict[str, Any]]


class Part(Protocol):
    """A shard of the new release, or what is left of it; see ``reissue.Rewritten``."""

    line: dict[str, Any] | None
    num_samples: int
    num_images: int
    before: Rows
    after: Rows
    labels: Counter[int]


def write_reissued_files(
    old: Storage, new: Storage, manifest: dict[str, Any], parts: Sequence[Part], parent: str
) -> dict[str, Any]:
    """Write every side file; label map, configuration, funnel and certificate stay as they are.

    The certificate still holds: what is left is a part of what it speaks of. Card, checksums and
    Croissant metadata are written anew; a release of before they were known gets none.

    Args:
        old: release.
        new: release.
        manifest: of the old one.
        parts: its shards, as they are now.
        parent: hex SHA-256 of the old manifest.

    Returns:
        fields of the new manifest that differ from the old one's.

    Raises:
        ValueError: a side file is not what the old manifest says.
    """
    shards = [part.line for part in parts if part.line is not None]
    side = _side_files(old, manifest)
    statistics = _statistics(json.loads(side["statistics.json"]), parts, shards)
    kinds = {kind: statistics[name] for name, kind in _KINDS.items()}
    side["statistics.json"] = json_bytes(statistics)
    side["LICENCES.md"] = licences_page(kinds).encode()
    before = manifest.get("removed", {"num_images": 0, "num_samples": 0, "num_shards": 0})
    removed = {
        "num_images": before["num_images"] + sum(p.num_images for p in parts),
        "num_samples": before["num_samples"] + sum(p.num_samples for p in parts),
        "num_shards": before["num_shards"] + len(parts) - len(shards),
    }
    if old.exists(LINEAGE):
        new.write_bytes_atomic(LINEAGE, old.read_bytes(LINEAGE))
    if CROISSANT in side:
        side |= _described(side, shards, parent, removed)
    for name, content in side.items():
        new.write_bytes_atomic(name, content)
    files = [{"name": name, "sha256": _sha256(content)} for name, content in sorted(side.items())]
    return {
        "num_samples": sum(line["num_samples"] for line in shards),
        "num_images": statistics["num_images"],
        "files": files,
        "removed": removed,
        "shards": shards,
    }


def _side_files(old: Storage, manifest: dict[str, Any]) -> dict[str, bytes]:
    side = {file["name"]: old.read_bytes(file["name"]) for file in manifest["files"]}
    for file in manifest["files"]:
        sha256 = _sha256(side[file["name"]])
        if sha256 != file["sha256"]:
            raise ValueError(
                f"{old.uri}/{file['name']}: sha256 {sha256}, expected {file['sha256']} as in "
                "manifest.json; nothing is issued."
            )
    return side


def _described(
    side: Mapping[str, bytes],
    shards: Sequence[Mapping[str, Any]],
    parent: str,
    removed: Mapping[str, int],
) -> dict[str, bytes]:
    given = {name: content for name, content in side.items() if name not in DESCRIBED}
    files = {name: json.loads(raw) for name, raw in given.items() if name.endswith(".json")}
    hashes = {name: _sha256(content) for name, content in given.items()}
    return describe(ReleaseContents(files, shards, hashes, parent, removed))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _statistics(
    statistics: dict[str, Any], parts: Sequence[Part], shards: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    changes: dict[tuple[str, str], Counter[str]] = {}
    taken: Counter[int] = Counter()
    for part in parts:
        taken.update(part.labels)
        for sign, rows in ((-1, part.before), (1, part.after)):
            for row in rows:
                sums = changes.setdefault((row["kind"], row["value"]), Counter())
                for name in _SUMS:
                    sums[name] += sign * row[name]
    new = dict(statistics)
    for name, kind in _KINDS.items():
        new[name] = _changed(statistics[name], kind, changes)
    new["num_images"] = sum(row["num_images"] for row in new["suffixes"])
    new["num_samples"] = sum(row["num_samples"] for row in new["suffixes"])
    new["num_image_bytes"] = sum(row["num_bytes"] for row in new["suffixes"])
    new["num_shards"] = len(shards)
    new["num_tar_bytes"] = sum(line["num_bytes"] for line in shards)
    new["labels"] = [
        row | {"num_samples": row["num_samples"] - taken[row["label_id"]]}
        for row in statistics["labels"]
    ]
    return new


def _changed(rows: Rows, kind: str, changes: dict[tuple[str, str], Counter[str]]) -> Rows:
    """Rows with their changes; rows of no sample leave, values new to the list join it.

    A value can be new: what was ``(other)`` in a shard may be among its commonest afterwards.
    """
    as_value = int if kind == "num_labels" else str
    by_value = {row["value"]: dict(row) for row in rows}
    for (of_kind, text), sums in changes.items():
        if of_kind == kind:
            value = as_value(text)
            row = by_value.setdefault(value, {"value": value} | dict.fromkeys(_SUMS, 0))
            for name in _SUMS:
                row[name] += sums[name]
    kept = [row for row in by_value.values() if any(row[name] for name in _SUMS)]
    return sorted(kept, key=lambda row: row["value"])

"""What a release says about itself: data card, checksums and Croissant metadata.

All three follow from the release's other files, so a re-issue writes them anew from what it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CARD, CROISSANT, SUMS = "README.md", "croissant.json", "SHA256SUMS"
LINEAGE = "lineage.json"
"""Versions of the tables that led here; beside the manifest, see ``release_files.lineage``."""
DESCRIBED = (CARD, SUMS, CROISSANT)
"""What is made from the other files, in the order of making: each names the ones before."""


@dataclass(frozen=True)
class ReleaseContents:
    """The files of a release that the others are described from.

    Attributes:
        files: content of the JSON files by name; certificate.json only where there is one.
        shards: lines of the manifest.
        sha256: hex digest of every side file by name.
        parent: hex SHA-256 of the manifest of the release that this one was re-issued from, or "".
        removed: images, samples and shards that re-issues took out.
    """

    files: Mapping[str, Any]
    shards: Sequence[Mapping[str, Any]]
    sha256: Mapping[str, str]
    parent: str = ""
    removed: Mapping[str, int] = field(default_factory=dict)

    @property
    def about(self) -> Mapping[str, Any]:
        """Title, description, licence, ...: the parameters of `write_release`."""
        params: Mapping[str, Any] = self.files["config.json"]["stages"][-1]["params"]
        return params

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Content of statistics.json."""
        statistics: Mapping[str, Any] = self.files["statistics.json"]
        return statistics

    @property
    def suffixes(self) -> list[str]:
        """Suffixes of the images, sorted."""
        return sorted(row["value"] for row in self.statistics["suffixes"])

    @property
    def num_labels(self) -> int:
        """Rows of the label map."""
        return len(self.files["label_map.json"]["labels"])

    def with_files(self, contents: Mapping[str, bytes]) -> ReleaseContents:
        """The same with the hashes of further files."""
        hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in contents.items()}
        return ReleaseContents(
            self.files, self.shards, {**self.sha256, **hashes}, self.parent, self.removed
        )


def counts_sentence(release: ReleaseContents) -> str:
    """Counts of a release in words."""
    statistics = release.statistics
    return (
        f"{statistics['num_samples']:,} samples of {statistics['num_images']:,} different images "
        f"with {release.num_labels:,} labels, in {statistics['num_shards']:,} shards of "
        f"{statistics['num_tar_bytes']:,} bytes in all."
    )


def checksums(release: ReleaseContents) -> str:
    """A line a file, as `sha256sum --check` reads them: side files, shards and their indexes.

    At 133,000 shards 25 MB. The files that name its own hash are not in it.
    """
    lines = [(name, digest) for name, digest in release.sha256.items()]
    for line in release.shards:
        lines += [(line["name"], line["sha256"]), (line["index"], line["index_sha256"])]
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(lines))


def licences_of(release: ReleaseContents, most: int = 20) -> list[str]:
    """Licence of the whole where one was given, else those that samples state."""
    if release.about["licence"]:
        return [release.about["licence"]]
    stated = [row["value"] for row in release.statistics["licences"]]
    known = [value for value in stated if value and value != "(other)"]
    is_whole = len(known) == len(stated) <= most
    return known[:most] + ([] if is_whole else ["others or unknown: see LICENCES.md"])


def json_bytes(value: Any) -> bytes:
    """Readable JSON, keys in the given order."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

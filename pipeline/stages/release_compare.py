"""Everything that a release says twice, compared; who reads the shards is left to the caller."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.files.storage import Storage
from pipeline.stages.findings import Findings, Mismatch
from pipeline.stages.release_about_check import check_about
from pipeline.stages.release_check import (
    check_counts,
    check_files,
    check_stage,
    check_statistics,
    label_names_of,
    read_release_manifest,
)

SUMS = ("num_images", "num_samples", "num_bytes")
ROWS = pa.schema(
    [(name, pa.string()) for name in ("what", "kind", "value")] + [(n, pa.int64()) for n in SUMS]
)
"""What shards are boiled down to; rows of equal strings may be summed."""
Lines = Sequence[dict[str, Any]]


def report_rows(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Report of ``check_shard`` as rows of ``ROWS``."""
    for kind, number in report["counts"]:
        yield {"what": "mismatch", "kind": kind, "value": "", "num_samples": number}
    for told in report["told"]:
        place = json.dumps([told["where"], told["found"], told["expected"]])
        yield {"what": "told", "kind": told["kind"], "value": place}
    for label, number in report["labels"]:
        yield {"what": "label", "kind": "", "value": str(label), "num_samples": number}
    for row in report["statistics"]:
        yield {"what": "statistic", **row}


def compare_release(
    storage: Storage,
    shard_rows: Callable[[Lines, Sequence[str]], Iterable[dict[str, Any]]],
    repeated_keys: Callable[[Lines], Iterable[tuple[str, int]]],
) -> Findings:
    """Compare the files of a release with its manifest, with each other and with the shards.

    Args:
        storage: folder of the release.
        shard_rows: lines of the manifest and label names -> rows of ``ROWS`` over all shards.
        repeated_keys: lines of the manifest -> some keys that several samples have, with their
            number; called only where every index can be read.

    Returns:
        what does not agree; nothing is raised for damage.
    """
    findings = Findings()
    manifest = read_release_manifest(storage, findings)
    if manifest is None:
        return findings
    contents = check_files(storage, manifest, findings)
    names = label_names_of(contents, findings, manifest["num_labels"])
    check_counts(manifest, contents, findings)
    check_about(storage, manifest, contents, findings)
    statistics: list[dict[str, Any]] = []
    labels: dict[int, int] = {}
    for row in shard_rows(manifest["shards"], names):
        if row["what"] == "mismatch":
            findings.counts[row["kind"]] += row["num_samples"]
        elif row["what"] == "told":
            findings.told.append(Mismatch(row["kind"], *json.loads(row["value"])))
        elif row["what"] == "label":
            label = int(row["value"])
            labels[label] = labels.get(label, 0) + row["num_samples"]
        else:
            statistics.append(row)
    if not {"missing_index", "index_unreadable", "index_schema"} & findings.counts.keys():
        for key, number in repeated_keys(manifest["shards"]):
            findings.add("repeated_key", key, f"{number} samples", "one of that key")
    check_statistics(manifest, contents, statistics, labels, findings)
    check_stage(storage, manifest, findings)
    return findings

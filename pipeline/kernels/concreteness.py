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

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.concreteness_mlp import (
    MlpSettings,
    initial_weights,
    predict_mlps,
    train_mlps,
)
from pipeline.kernels.concreteness_ridge import fit_ridge, predict_ridge
from pipeline.kernels.concreteness_sampling import (
    NegativePool,
    sample_hashes,
    standardise,
)
from pipeline.kernels.concreteness_scores import (
    OK,
    SCORE_SCHEMA,
    TOO_FEW_NEGATIVES,
    TOO_FEW_POSITIVES,
    ProbeSettings,
    score_table,
)
from pipeline.kernels.concreteness_splits import FoldPlan, plan_folds
from pipeline.kernels.finite import require_finite

__all__ = ["SCORE_SCHEMA", "NegativePool", "ProbeSettings", "score_terms"]


@dataclass(frozen=True)
class _Probe:
    """One model to train: rows of its two sides by rank, and its plan."""

    term_index: int
    term_id: int
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    plan: FoldPlan


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
    order = np.lexsort((hashes, ranks, owner))
    features = torch.from_numpy(standardise(positive_embeddings, pool.mean, pool.scale))
    negatives = torch.from_numpy(pool.features)
    starts = np.searchsorted(owner[order], terms, side="left")
    stops = np.searchsorted(owner[order], terms, side="right")

    used = np.zeros(len(terms), np.int32)
    status = np.full(len(terms), OK, dtype=object)
    probes: list[_Probe] = []
    for i, term_id in enumerate(terms.tolist()):
        rows = order[starts[i] : stops[i]]
        used[i] = min(len(rows), settings.max_positives)
        if used[i] < settings.min_positives:
            status[i] = TOO_FEW_POSITIVES
            continue
        others = pool.draw(term_id, hashes[rows], int(used[i]), settings.seed)
        if len(others) < settings.min_positives:
            status[i] = TOO_FEW_NEGATIVES
            continue
        used[i] = len(others)
        probes += [
            _Probe(i, term_id, rows[: used[i]], others, plan)
            for plan in _plans(int(used[i]), settings)
        ]

    correct = np.zeros(len(terms), np.int64)
    tested = np.zeros(len(terms), np.int64)
    probes.sort(key=lambda p: (p.plan.shape, p.term_id, p.plan.fold))
    for _, same_shape in groupby(probes, key=lambda p: p.plan.shape):
        group = list(same_shape)
        for at in range(0, len(group), settings.terms_per_batch):
            chunk = group[at : at + settings.terms_per_batch]
            hits = _score_probes(chunk, features, negatives, settings)
            for probe, hit in zip(chunk, hits, strict=True):
                correct[probe.term_index] += hit
                tested[probe.term_index] += 2 * int((probe.plan.test >= 0).sum())
    return score_table(terms, correct, tested, used, status, settings)


def _score_probes(
    probes: list[_Probe], features: Tensor, negatives: Tensor, settings: ProbeSettings
) -> NDArray[np.int64]:
    """Number of test items that each probe gets right; all probes have one shape."""
    num = len(probes)
    if num == 1:  # the product of a single matrix takes another path, with other rounding
        probes = probes * 2
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    x_BSRD, mask_BSR = _gather(
        probes, np.stack([p.plan.train for p in probes]), features, negatives, settings, dtype
    )
    target_BSR = torch.zeros_like(mask_BSR)
    target_BSR[:, :, : mask_BSR.shape[2] // 2] = 1
    test_B1RD, test_mask_B1R = _gather(
        probes,
        np.stack([p.plan.test for p in probes])[:, None],
        features,
        negatives,
        settings,
        dtype,
    )
    if settings.method == "ridge":
        fit = fit_ridge(
            x_BSRD.flatten(1, 2),
            target_BSR.flatten(1) * 2 - 1,
            mask_BSR.flatten(1),
            settings.ridge_alpha,
        )
        logit_BR = predict_ridge(test_B1RD[:, 0], *fit)
    else:
        keys = [(p.term_id, p.plan.fold) for p in probes]
        start = initial_weights(keys, x_BSRD.shape[3], settings.hidden, settings.seed)
        start = type(start)(*(t.to(settings.device) for t in (start.w_BDH, start.small_BK)))
        mlp = MlpSettings(
            settings.hidden,
            settings.epochs,
            settings.learning_rate,
            settings.weight_decay,
            dtype,
            settings.seed,
        )
        weights = train_mlps(x_BSRD, target_BSR, mask_BSR, start, mlp)
        logit_BR = predict_mlps(test_B1RD[:, 0], weights, dtype)
    half = logit_BR.shape[1] // 2
    right_BR = torch.cat([logit_BR[:, :half] > 0, logit_BR[:, half:] <= 0], dim=1)
    hits = (right_BR & (test_mask_B1R[:, 0] > 0)).sum(dim=1)
    return np.asarray(hits[:num].cpu().numpy(), np.int64)


def _gather(
    probes: list[_Probe],
    ranks_BSH: NDArray[np.int32],
    features: Tensor,
    negatives: Tensor,
    settings: ProbeSettings,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Rows of the given ranks, positives in the first half of each step; and their mask."""
    half = ranks_BSH.shape[2]
    x_BSRD = torch.empty((*ranks_BSH.shape[:2], 2 * half, features.shape[1]), dtype=dtype)
    for b, probe in enumerate(probes):
        ranks = ranks_BSH[b]
        for side, (rows, matrix) in enumerate(
            ((probe.positives, features), (probe.negatives, negatives))
        ):
            index = np.where(ranks >= 0, rows[ranks], len(matrix) - 1)
            x_BSRD[b, :, side * half : (side + 1) * half] = matrix[torch.from_numpy(index)]
    mask = torch.from_numpy((ranks_BSH >= 0).astype(np.float32))
    device = torch.device(settings.device)
    return x_BSRD.to(device), torch.cat([mask, mask], dim=2).to(device)


def _plans(num_rows: int, settings: ProbeSettings) -> list[FoldPlan]:
    return plan_folds(
        num_rows,
        settings.test_share,
        settings.folds_below,
        settings.num_folds,
        settings.batch_size,
        settings.min_batch_size,
        settings.batches_per_epoch,
    )


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
    if len(embeddings) and embeddings.shape[1] != len(pool.mean):
        raise ValueError(
            f"positives: embeddings of width {embeddings.shape[1]}, expected the pool's "
            f"{len(pool.mean)}."
        )
    require_finite(embeddings, "positive embeddings")
    if np.any(terms[1:] == terms[:-1]):
        raise ValueError("term_ids: repeated term, expected each term once.")
    strangers = np.setdiff1d(owner, terms)
    if len(strangers):
        raise ValueError(f"positives: term {strangers[0]} is not among the terms to score.")
    order = np.lexsort((hashes, owner))
    same = (owner[order][1:] == owner[order][:-1]) & (hashes[order][1:] == hashes[order][:-1])
    if same.any():
        term = owner[order][1:][same][0]
        raise ValueError(f"positives: an image is given twice for term {term}, expected once.")

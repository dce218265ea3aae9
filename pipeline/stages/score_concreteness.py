"""Visual concreteness of every term that has positives (paper section 3.2.1; SPEC C1-C5).

Cost at 1.329 billion images: does not depend on them; 218,879 terms of up to 1,000 + 1,000 examples
of 256 dimensions at some 50 terms a second and core, 1.3 core-hours (all 20 epochs: 20 terms;
ridge: 140; two AVX2 cores): all of them took 41 minutes on two cores that did other work too,
2.2 GiB for the process tree (`make bench BENCH=concreteness_full_run`). A task holds the pool (10^5
images, 100 MB prepared, half as much again for bf16), a slice of 32,768 positives and
``probes_per_batch`` probes: about 1 GiB. A killed run goes on after the last finished slice.

torch is imported by the tasks that use it: a driver plans the chain without it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from pipeline.config.labels import ScoreConcretenessParams
from pipeline.kernels.concreteness_sampling import NegativePool
from pipeline.kernels.concreteness_scores import ProbeSettings
from pipeline.kernels.concreteness_splits import SplitSettings
from pipeline.kernels.hashing import hash64
from pipeline.kernels.nested import list_offsets, one_chunk
from pipeline.kernels.vectors import to_matrix
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule
from schemas.ingested import TERMS
from schemas.labels import CONCRETENESS_POOL, CONCRETENESS_POSITIVES, TERM_CONCRETENESS

_NO_CAP = 1 << 30
"""Sampling has capped the positives already."""


@dataclass(frozen=True)
class ScoreState:
    """What every batch needs.

    Attributes:
        pool: negatives.
        settings: of the probes.
    """

    pool: NegativePool
    settings: ProbeSettings


def prepare(
    concreteness_pool: pa.Table, terms: pa.Table, params: ScoreConcretenessParams
) -> ScoreState:
    """Index the pool; one thread a task, since Spark runs a task a core."""
    import torch

    torch.set_num_threads(1)
    ids = terms["term_id"].to_numpy()
    canonical = np.arange(int(ids.max(initial=-1)) + 1, dtype=np.int32)
    canonical[ids] = terms["canonical_term_id"].to_numpy()
    lists = one_chunk(concreteness_pool["term_ids"])
    pool = NegativePool.build(
        hash64(concreteness_pool["image_id"], 0, "concreteness.image"),
        to_matrix(concreteness_pool["embedding"]),
        list_offsets(lists),
        lists.flatten().to_numpy(),
        canonical,
        params.max_components,
    )
    return ScoreState(pool, settings_of(params))


def settings_of(params: ScoreConcretenessParams) -> ProbeSettings:
    """Parameters as the kernel takes them: sampling has capped the positives, and what does not
    stop early holds nothing back for it."""
    given = params.model_dump(exclude={"max_components"})
    stops_early = params.method == "mlp" and params.patience > 0
    if not stops_early:
        given |= {"patience": 0, "validation_share": 0.0}
    splits = {field.name: given.pop(field.name) for field in fields(SplitSettings)}
    return ProbeSettings(max_positives=_NO_CAP, splits=SplitSettings(**splits), **given)


def score_batch(
    concreteness_positives: pa.Table, state: ScoreState, params: ScoreConcretenessParams
) -> BatchResult:
    """Score the terms of a batch; each has all of its rows here."""
    from pipeline.kernels.concreteness import score_terms

    del params
    owners = concreteness_positives["term_id"].to_numpy()
    scores = score_terms(
        np.unique(owners),
        owners,
        hash64(concreteness_positives["image_id"], 0, "concreteness.image"),
        to_matrix(concreteness_positives["embedding"])
        if len(owners)
        else np.zeros((0, state.pool.preparation.width), np.float32),
        state.pool,
        state.settings,
    )
    unused = len(owners) - sum(scores["num_positives"].to_pylist())
    counts = {"terms.scored": scores.num_rows, "positives.dropped.too_few_negatives": unused}
    return BatchResult({"term_concreteness": scores}, counts)


STAGE = BatchwiseStage(
    name="score_concreteness",
    version=5,
    kernel=score_batch,
    prepare=prepare,
    params=ScoreConcretenessParams,
    aligned=(CONCRETENESS_POSITIVES,),
    broadcast=(CONCRETENESS_POOL, TERMS),
    outputs=(TERM_CONCRETENESS,),
    batch_rows=32_768,
    whole_keys=True,
    keep_slices=True,
    ledger=(
        LedgerRule(
            "positives",
            ("concreteness_positives",),
            ("term_concreteness.num_positives",),
            dropped_counts="positives.dropped.",
        ),
    ),
)

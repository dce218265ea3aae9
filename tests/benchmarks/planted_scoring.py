"""`score_concreteness` over planted terms whose positives are made on the fly, as a resumable job.

218,879 terms of 1,000 + 1,000 examples of 256 dimensions would be 224 GB on disk; here a task makes
the rows of its terms itself and hands them to the stage's own kernel. All else is as in production:
Spark schedules the buckets, slices are kept, a killed run goes on, the output is checked and
published.

`python tests/benchmarks/planted_scoring.py ROOT --terms 218879`
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from benchmarks.concreteness_data import Positives, pool_of  # noqa: E402
from pipeline.config.labels import ScoreConcretenessParams  # noqa: E402
from pipeline.kernels.concreteness import score_terms  # noqa: E402
from pipeline.stages.score_concreteness import STAGE, settings_of  # noqa: E402
from pipeline.stages.stage import BatchResult  # noqa: E402
from schemas.contract import Table  # noqa: E402
from schemas.ingested import TERM_ID  # noqa: E402

TERMS_PER_SLICE = 32
PLANTED_TERMS = Table(
    name="planted_terms", doc="Terms to plant.", key=("term_id",), columns=(TERM_ID,)
)


class PlantedParams(ScoreConcretenessParams):
    """Parameters of the job: those of the stage, and the size of what is planted."""

    support: int = 1000
    pool_size: int = 100_000


def prepare(params: PlantedParams) -> tuple[Any, Any, Any]:
    """Pool, maker of positives and settings; one thread a task, as in the stage."""
    import torch

    torch.set_num_threads(1)
    own = {"support", "pool_size"}
    settings = settings_of(ScoreConcretenessParams(**params.model_dump(exclude=own)))
    return pool_of(params.pool_size), Positives(params.support), settings


def score_planted(planted_terms: pa.Table, state: Any, params: PlantedParams) -> BatchResult:
    """Make the positives of a slice of terms and score it."""
    del params
    pool, positives, settings = state
    terms = planted_terms["term_id"].to_numpy()
    if len(terms) == 0:
        return BatchResult({"term_concreteness": STAGE.outputs[0].empty()})
    rows, hashes = zip(*(positives.of(int(term)) for term in terms), strict=True)
    owner = np.repeat(terms, [len(r) for r in rows])
    args = (terms, owner, np.concatenate(hashes), np.concatenate(rows), pool, settings)
    scores = score_terms(*args)
    return BatchResult({"term_concreteness": scores}, {"terms.scored": scores.num_rows})


PLANTED = dataclasses.replace(
    STAGE,
    name="score_planted_terms",
    kernel=score_planted,
    prepare=prepare,
    params=PlantedParams,
    section="score_concreteness",
    aligned=(PLANTED_TERMS,),
    broadcast=(),
    batch_rows=TERMS_PER_SLICE,
    ledger=(),
)


def main() -> None:
    """Run or resume the job."""
    from given import publish_rows

    from pipeline.config.run import RunConfig
    from pipeline.config.runtime import RuntimeParams
    from pipeline.files.storage import open_storage
    from pipeline.runtime.lifecycle import Lifecycle
    from pipeline.runtime.logs import setup_logging
    from pipeline.runtime.planning import PlannedStage
    from pipeline.runtime.session import open_session

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--terms", type=int, default=218_879)
    parser.add_argument("--support", type=int, default=1000)
    parser.add_argument("--buckets", type=int, default=256)
    given = parser.parse_args()
    setup_logging()
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])  # the workers find this module
    runtime = RuntimeParams(num_buckets=given.buckets, driver_memory="2g")
    config = RunConfig(root=given.root, runtime=runtime)
    storage = open_storage(given.root)
    rows = [{"term_id": term} for term in range(given.terms)]
    terms = publish_rows(storage, PLANTED_TERMS, rows, given.buckets)
    params = PlantedParams(support=given.support)
    version = f"{params.fingerprint()[:12]}"
    inputs = {"planted_terms": terms.version}
    planned = PlannedStage(PLANTED, params, inputs, version, None)
    spark = open_session("score_planted_terms", config.runtime, storage.path("_scratch"))
    try:
        Lifecycle(spark, config, storage, {"planted_terms": terms}).run(planned)
    finally:
        spark.stop()


if __name__ == "__main__":
    import benchmarks.planted_scoring as module  # so that workers import it by this name

    module.main()

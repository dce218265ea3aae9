"""Text embeddings of every term and seed text, each text once (SPEC K1, I6).

Vectors are cached by (model, text) below ``_cache/text_embeddings`` of the root: a dictionary that
grew costs its new texts only, and a killed task starts where it was. The cache changes the time a
run takes, never its result: a text's vector does not depend on the texts beside it.

Cost at 218,879 terms: 9 core-minutes (400 terms/s a core) spread over the shuffle partitions,
340 MB of vectors through one shuffle into one file; the next run with the same model reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.ingest import EmbedTextsParams
from pipeline.files.packaged_texts import text_model_of
from pipeline.files.storage import Storage
from pipeline.files.vector_cache import VectorCache
from pipeline.kernels.encode_texts import TextEncoder, load_text_encoder, text_model_identity
from pipeline.kernels.vectors import from_matrix
from pipeline.stages.stage import RelationalStage, StageContext
from schemas.ingested import INTEREST_SEEDS, TERMS, TEXT_EMBEDDINGS

CACHE_FOLDER = "_cache/text_embeddings"
NUM_CELLS = 256
"""Files of the cache: a task owns whole cells, so there is no use in more tasks."""
_CELL = "_cell"
_GROUP_TEXTS = 8192
"""Texts between two writes of the cache: 20 s of one core, the most that a killed task loses."""


def load_encoder(params: EmbedTextsParams) -> TextEncoder:
    """The encoder, loaded once a worker."""
    model = text_model_of(params.model)
    return load_text_encoder(model, params.device, params.batch_tokens, params.threads)


def embed_terms(
    terms: DataFrame,
    params: EmbedTextsParams,
    ctx: StageContext,
    interest_seeds: DataFrame | None = None,
) -> dict[str, DataFrame]:
    """Every distinct text with its vector."""
    texts = terms.select("text")
    if interest_seeds is not None:
        texts = texts.unionByName(interest_seeds.select("text"))
    cell = F.pmod(F.xxhash64("text"), F.lit(NUM_CELLS)).cast("int")
    # A number given here survives adaptive execution, which would see few bytes and take one task.
    wanted = int(terms.sparkSession.conf.get("spark.sql.shuffle.partitions", "200") or 200)
    spread = (
        texts.distinct().withColumn(_CELL, cell).repartition(min(wanted, NUM_CELLS), F.col(_CELL))
    )
    encode = _encoder(ctx.storage, params)
    return {"text_embeddings": spread.mapInArrow(encode, TEXT_EMBEDDINGS.ddl)}


def _encoder(
    storage: Storage, params: EmbedTextsParams
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = [pa.Table.from_batches([batch]) for batch in batches if batch.num_rows]
        if not rows:
            return
        by_cell = pa.concat_tables(rows).sort_by([(_CELL, "ascending"), ("text", "ascending")])
        for group in _groups(by_cell):
            found = embed_cells(group, storage, params)
            yield from found.cast(TEXT_EMBEDDINGS.arrow_schema).to_batches()

    return encode


def embed_cells(rows: pa.Table, storage: Storage, params: EmbedTextsParams) -> pa.Table:
    """Vectors of texts, from the cache where it has them; the others are computed and added.

    Args:
        rows: distinct `text` and its cell, sorted by cell; whole cells.
        storage: root of the cache.
        params: of the stage.

    Returns:
        text, embedding.
    """
    model = text_model_of(params.model)
    identity = text_model_identity(model, params.device, params.batch_tokens)
    cache = VectorCache(storage, f"{CACHE_FOLDER}/{identity}")
    found: list[pa.Table] = []
    missing: list[pa.Table] = []
    for cell in pc.unique(rows.column(_CELL)).to_pylist():
        texts = rows.filter(pc.equal(rows.column(_CELL), cell))
        known = cache.read(cell)
        if known is None:
            missing.append(texts)
            continue
        found.append(known.filter(pc.is_in(known.column("text"), texts.column("text"))))
        is_known = pc.is_in(texts.column("text"), known.column("text"))
        missing.append(texts.filter(pc.invert(is_known)))
    new = pa.concat_tables(missing) if missing else rows.slice(0, 0)
    if new.num_rows:
        vectors = from_matrix(load_encoder(params).encode(new.column("text").to_pylist()))
        new = new.append_column("embedding", vectors)
        for cell in pc.unique(new.column(_CELL)).to_pylist():
            cache.add(cell, new.filter(pc.equal(new.column(_CELL), cell)))
        found.append(new.select(["text", "embedding"]))
    return pa.concat_tables(found)


def _groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Whole cells together, up to about ``_GROUP_TEXTS`` texts."""
    cells = rows.column(_CELL).to_numpy()
    starts = np.flatnonzero(np.r_[True, cells[1:] != cells[:-1]])
    begin = 0
    for stop in [*starts[1:].tolist(), len(cells)]:
        if stop - begin >= _GROUP_TEXTS or stop == len(cells):
            yield rows.slice(begin, stop - begin)
            begin = stop


STAGE = RelationalStage(
    name="embed_terms",
    version=1,
    fn=embed_terms,
    params=EmbedTextsParams,
    inputs=(TERMS, INTEREST_SEEDS),
    optional=(INTEREST_SEEDS,),
    outputs=(TEXT_EMBEDDINGS,),
)

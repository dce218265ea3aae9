"""Interest classifiers as rows: training labels, models and reports between tables and kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.kernels.align import positions_of
from pipeline.kernels.interests import InterestModel
from pipeline.kernels.nested import list_offsets, one_chunk
from schemas.labels import TERM_INTEREST_MODEL, TERM_INTEREST_REPORT

MODEL = TERM_INTEREST_MODEL.ddl


def has_interests(column: pa.Array | pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Lists of interests as a matrix, bool (n, L); unknown names are left out."""
    lists = one_chunk(column)
    rows = np.repeat(np.arange(len(lists)), np.diff(list_offsets(lists)))
    found = pc.index_in(lists.flatten(), value_set=pa.array(list(names), pa.string()))
    known = pc.is_valid(found).to_numpy(zero_copy_only=False)
    matrix = np.zeros((len(lists), len(names)), bool)
    matrix[rows[known], pc.drop_null(found).to_numpy()] = True
    return matrix


def seed_vectors(seeds: pa.Table, embeddings: pa.Table) -> tuple[pa.Table, pa.Array]:
    """Seed texts that have an embedding, by text, and their embeddings.

    Raises:
        ValueError: none has one.
    """
    seeds = seeds.sort_by("text")
    at = positions_of(seeds["text"], embeddings["text"])
    if not (at >= 0).any():
        raise ValueError(
            "interest_seeds: no seed text has an embedding, expected some. Are term_embeddings "
            "given for other terms than the seeds?"
        )
    vectors = one_chunk(embeddings["embedding"]).take(pa.array(at[at >= 0]))
    return seeds.filter(pa.array(at >= 0)), vectors


def group_codes(
    texts: list[str], source_nodes: Sequence[Sequence[str]] | None = None
) -> NDArray[np.int64]:
    """Group of each text for the folds: connected by a common lemma or a common source node.

    So that neither "cat" and "cats" nor two words of one node ever stand on both sides of a fold.

    Args:
        texts: normalised; a lemma is its words in order without plural endings.
        source_nodes: nodes of each text; None groups by lemma alone.
    """
    lemmas = [("lemma", " ".join(_stem(word) for word in text.split())) for text in texts]
    nodes = source_nodes or [()] * len(texts)
    keys = [[lemma, *(("node", n) for n in of)] for lemma, of in zip(lemmas, nodes, strict=True)]
    code: dict[tuple[str, str], int] = {}
    column = [code.setdefault(key, len(code)) for of in keys for key in of]
    row = np.repeat(np.arange(len(texts)), [len(of) for of in keys])
    num = len(texts) + len(code)
    links = coo_array((np.ones(len(row)), (row, np.array(column, int) + len(texts))), (num, num))
    component = connected_components(links, directed=False)[1]
    return np.asarray(component[: len(texts)], np.int64)


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def model_batch(name: str, model: InterestModel) -> pa.RecordBatch:
    """A model as the one row of its table."""
    columns = [pa.array([name], pa.string()), pa.array([model.to_json()], pa.string())]
    return pa.RecordBatch.from_arrays(columns, TERM_INTEREST_MODEL.column_names)


def read_model(table: pa.Table) -> InterestModel:
    """The model of a table of one row."""
    return InterestModel.from_json(table["model"][0].as_py())


def report_of(model: DataFrame) -> DataFrame:
    """The report that a model carries, as rows."""

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for text in batch.column("model").to_pylist():
                report = InterestModel.from_json(text).report
                chosen = report.select(TERM_INTEREST_REPORT.column_names)
                yield from chosen.cast(TERM_INTEREST_REPORT.arrow_schema).to_batches()

    return model.mapInArrow(rows, TERM_INTEREST_REPORT.ddl)

"""Sets of labelled pairs: the table of judgements and the images it names.

Source: SPEC D3; contract: ``schemas/evaluation.py``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.config.evaluate import PairSet
from pipeline.evaluate.pairs import LabelledPairs
from pipeline.evaluate.sets import ImageSet, untagged_set
from pipeline.files.storage import open_storage
from schemas.evaluation import LABELLED_PAIRS

_ENDS = ("image_id_a", "image_id_b")


def pair_set(given: PairSet) -> ImageSet:
    """The images that labelled pairs name, and the pairs by place among them.

    Images that no pair names are not read.

    Args:
        given: where both are.

    Raises:
        ValueError: a breach of the contract, an id without an image, a pair twice (in either
            order) or of one image, or judgements of one kind only.
    """
    table = _read(given.pairs)
    images = untagged_set(given.name, given.images)
    named = pc.unique(pa.chunked_array([*table["image_id_a"].chunks, *table["image_id_b"].chunks]))
    ids = sorted(named.to_pylist())
    place = {image_id: i for i, image_id in enumerate(images.ids)}
    unknown = [i for i in ids if i not in place]
    first, second = (_places(table[end], ids) for end in _ENDS)
    judged = table["is_near_duplicate"].to_numpy().astype(np.bool_)
    breaches = [*_pair_breaches(first, second, ids), *_judgement_breaches(judged)]
    if unknown:
        breaches.append(
            f"{len(unknown):,} ids are not among the images of {given.images}, e.g. {unknown[0]!r}"
        )
    if breaches:
        raise ValueError(f"{given.pairs}: {'; '.join(breaches)}. Contract: schemas/evaluation.py.")
    rows = [place[i] for i in ids]
    return replace(
        images,
        ids=ids,
        classes=images.classes[rows],
        read=lambda i: images.read(rows[i]),
        pairs=LabelledPairs(first, second, judged),
    )


def _read(path: str) -> pa.Table:
    """Pairs in the order of their ids.

    Raises:
        ValueError: not a Parquet file of the contract's columns without nulls.
    """
    folder, _, file = path.rpartition("/")
    schema = LABELLED_PAIRS.arrow_schema
    with open_storage(folder or ".").open_read(file) as handle:
        parquet = pq.ParquetFile(handle)
        missing = [name for name in schema.names if name not in parquet.schema_arrow.names]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}, expected {', '.join(schema.names)}. "
                "Contract: schemas/evaluation.py."
            )
        table = parquet.read(columns=schema.names)
    try:
        table = table.select(schema.names).cast(pa.schema([(f.name, f.type) for f in schema]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: {error}. Contract: schemas/evaluation.py.") from error
    for name in schema.names:
        if table[name].null_count:
            raise ValueError(f"{path}.{name}: {table[name].null_count:,} nulls, expected none.")
    return table.sort_by([(name, "ascending") for name in _ENDS])


def _places(column: pa.ChunkedArray, ids: list[str]) -> NDArray[np.int64]:
    found = pc.index_in(column, value_set=pa.array(ids, pa.string()))
    return np.asarray(found.to_numpy(), np.int64)


def _pair_breaches(
    first: NDArray[np.int64], second: NDArray[np.int64], ids: list[str]
) -> list[str]:
    breaches = []
    alone = ids[first[first == second][0]] if (first == second).any() else None
    if alone is not None:
        breaches.append(f"{alone!r} is paired with itself")
    ends = zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True)
    twice = sorted(pair for pair, times in Counter(ends).items() if times > 1)
    if twice:
        a, b = (ids[i] for i in twice[0])
        breaches.append(f"{len(twice):,} pairs stand there twice, e.g. {a!r} and {b!r}")
    return breaches


def _judgement_breaches(is_positive: NDArray[np.bool_]) -> list[str]:
    num = int(is_positive.sum())
    if 0 < num < len(is_positive):
        return []
    return [f"{num:,} of {len(is_positive):,} pairs are near-duplicates, expected some and not all"]

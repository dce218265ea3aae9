"""Literal rows of the label tables."""

import pyarrow as pa

from schemas import ALL


def table(name, *rows):
    """Rows as tuples in the order of the contract's columns; the rest is null."""
    contract = ALL[name]
    columns = zip(*rows, strict=True) if rows else [[] for _ in contract.columns]
    values = dict(zip(contract.column_names, columns, strict=False))
    return pa.table(
        [
            pa.array(list(values[f.name]), f.type)
            if f.name in values
            else pa.nulls(len(rows), f.type)
            for f in contract.arrow_schema
        ],
        schema=contract.arrow_schema,
    )


def annotations(**terms):
    rows = [(i, [{"term_id": t, "score": s} for t, s in found]) for i, found in terms.items()]
    return table("annotations", *rows)

"""Encoded images of a batch, from the table or from where their uris point."""

from __future__ import annotations

import pyarrow as pa

from pipeline.files.fetch import FetchPolicy, fetch, fetch_in_order


def read_contents(
    data: pa.ChunkedArray, uris: pa.ChunkedArray, max_bytes: int, policy: FetchPolicy
) -> list[bytes | Exception]:
    """Content of each image, read in parallel where it is not in the table.

    Args:
        data: binary of shape (n,), null where the content stands at the uri.
        uris: string of shape (n,), null where the content stands in the table.
        max_bytes: at most one byte more than this is read of a file.
        policy: how to read.

    Returns:
        n entries: the content, or what reading it raised.
    """
    contents, places = data.to_pylist(), uris.to_pylist()
    outcomes = fetch_in_order(
        range(len(contents)),
        at_hand=lambda i: contents[i],
        read=lambda i: fetch(places[i], max_bytes, policy),
        threads=policy.threads,
    )
    return [
        outcome if isinstance(outcome, Exception) else bytes(outcome) for _, outcome in outcomes
    ]

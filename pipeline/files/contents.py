"""Encoded images of a batch, from the table or from where their uris point."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.files.fetch import FetchPolicy, fetch, fetch_in_order

READ_ROWS = 64
"""Images read ahead of their decoder: what a task holds of files, and what tells an outage."""


def stream_contents(
    data: pa.ChunkedArray, uris: pa.ChunkedArray, max_bytes: int, policy: FetchPolicy
) -> Iterator[bytes | Exception | None]:
    """``read_contents``, holding ``READ_ROWS`` images at a time.

    Raises:
        OSError: ``READ_ROWS`` files in a row cannot be read, for other reasons than absence: the
            storage is at fault, and setting the images aside would hide it.
    """
    for start in range(0, len(data), READ_ROWS):
        part = slice(start, start + READ_ROWS)
        found = read_contents(data[part], uris[part], max_bytes, policy)
        if len(found) == READ_ROWS and all(map(_is_outage, found)):
            raise OSError(
                f"images.uri: {READ_ROWS} files in a row cannot be read, e.g. {uris[start]}: "
                f"{found[0]!r}. Is the storage reachable from the workers?"
            )
        yield from found


def read_contents(
    data: pa.ChunkedArray, uris: pa.ChunkedArray, max_bytes: int, policy: FetchPolicy
) -> list[bytes | Exception | None]:
    """Content of each image, read in parallel where it is not in the table.

    Args:
        data: binary of shape (n,), null where the content stands at the uri.
        uris: string of shape (n,), null where the content stands in the table.
        max_bytes: at most one byte more than this is read of a file.
        policy: how to read.

    Returns:
        n entries: the content, what reading it raised, None where there is neither bytes nor uri.
    """
    contents: list[bytes | Exception | None] = data.to_pylist()
    places = uris.to_pylist()
    absent = [i for i, content in enumerate(contents) if content is None and places[i] is not None]
    for i, outcome in fetch_in_order(
        absent,
        at_hand=lambda _: None,
        read=lambda i: fetch(places[i], max_bytes, policy),
        threads=policy.threads,
    ):
        contents[i] = outcome if isinstance(outcome, Exception) else bytes(outcome)
    return contents


def _is_outage(content: bytes | Exception | None) -> bool:
    return isinstance(content, Exception) and not isinstance(content, FileNotFoundError)

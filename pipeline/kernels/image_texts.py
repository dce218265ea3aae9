"""The text of an image, for a text encoder."""

from __future__ import annotations

from collections.abc import Sequence


def image_text(
    tags: Sequence[str | None] | None, title: str | None, description: str | None, max_words: int
) -> str:
    """Tags, then title, then description, up to a number of words; empty when there are none.

    Tags come first, for they are the densest: what is cut is the end of a description. White space
    runs become one space; nothing else changes, encoders have normalisers of their own.

    Args:
        tags: user tags; nulls and blank ones are passed over.
        title: may be missing.
        description: may be missing.
        max_words: at least 1; words are runs between white space.

    Source: SPEC-dataset L3.
    """
    parts = [", ".join(" ".join(tag.split()) for tag in tags or () if tag and tag.strip())]
    parts += [" ".join(text.split()) for text in (title, description) if text]
    return " ".join(". ".join(part for part in parts if part).split(" ")[:max_words])

"""The one place where term text is normalised and compared with sensitive terms (I3, Y3).

Two forms of a text, for two uses:

- ``normalise_term``: the dictionary key. Keeps letters apart that only look alike, so that the
  Russian "сон" and a Latin look-alike stay two terms.
- ``skeleton``: what the eye sees. Only for the comparison with the sensitive list, where a false
  match costs one label and a missed one reaches a release.

The confusable table is that of the package ``disarm`` (MIT, offline, Unicode 17, compiled: 2 us a
text). ``confusable-homoglyphs`` was weighed and left: it answers which characters look alike, in
both directions, but has no skeleton (no prototype), and folds neither case nor compatibility.

Source: SPEC I3, Y3; Unicode TR36, TR39 section 4 (skeleton), TR31 (NFKC_Casefold).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import disarm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_MAX_ROUNDS = 32
"""Bound of the fixed-point loops; two or three rounds settle everything seen."""

_INVISIBLE_RANGES = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2060, 0x206F),
    (0x2800, 0x2800), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
"""Outside category Cf, yet print nothing: default ignorables and the blank Braille cell."""

_DIACRITICS = range(0x0300, 0x0370)
"""Generic combining marks; those of other blocks are letters of their scripts (Devanagari)."""

_CASE_CLOSURE = str.maketrans({"i": "l", "ı": "l", "1": "l", "|": "l", "0": "o"})
"""TR39 has I = l = 1 = | and O = 0; with case folded away, i joins the first class."""

_TOKEN = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    "|[\u2600-\u27bf\U0001f000-\U0001faff]"
    "|[^\\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
"""A run of letters and digits; ideographs, kana and pictographs are words of one character."""
MAX_PHRASE_TOKENS = 8
"""Longest sensitive phrase looked for inside a text; longer ones match whole texts only."""
_MAX_SPELLED = 24
"""Longest word looked for among letters that stand one by one."""


def normalise_term(text: str) -> str:
    """Dictionary key of a term text.

    NFKC, full case folding, removal of format, control and other invisible characters, runs of
    white space to one space, ends trimmed; repeated until nothing changes, so it is idempotent.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.lower().split())
    for _ in range(_MAX_ROUNDS):
        folded = unicodedata.normalize("NFKC", text).casefold()
        folded = unicodedata.normalize("NFKC", _strip_invisible(folded))
        folded = " ".join(folded.split())
        if folded == text:
            return folded
        text = folded
    raise AssertionError(f"normalise_term: no fixed point for {text!a}")


def normalise_texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """``normalise_term`` of every row, nulls kept.

    ASCII rows go through Arrow's kernels; the rest one by one.

    Returns:
        string array of the same length.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    plain = pc.replace_substring_regex(
        pc.utf8_trim_whitespace(pc.ascii_lower(array)), pattern=" {2,}", replacement=" "
    )
    is_plain = pc.match_substring_regex(array, "^[ -~]*$")
    if pc.all(is_plain, min_count=0).as_py():
        return plain
    hard = pc.filter(array, pc.invert(is_plain))
    done = pa.array([normalise_term(t) for t in hard.to_pylist()], pa.string())
    return pc.replace_with_mask(plain, pc.fill_null(pc.invert(is_plain), False), done)


def skeleton(text: str) -> str:
    """What a text looks like: TR39 skeleton, without case, invisible characters and accents.

    Two texts that a reader takes for one have one skeleton; it is a key, not for display
    ("jaguar" stays, "modem" and "modern" both become "modem"). Idempotent.
    """
    text = _strip_invisible(text)
    for _ in range(_MAX_ROUNDS):
        seen = _one_skeleton_round(text)
        if seen == text:
            return seen
        text = seen
    raise AssertionError(f"skeleton: no fixed point for {text!a}")


def skeletons(text: str) -> frozenset[str]:
    """All readings of a text that the sensitive comparison tries.

    A glyph may look like one letter as it stands and like another once case is folded upstream
    (Greek capital eta is H, its small form is n) or NFKC is applied (long s is f, then s), and
    the comparison cannot know which of them the reader sees.
    """
    visual = disarm.normalize_confusables(_strip_invisible(text), digit_policy="tr39")
    return frozenset({skeleton(text), skeleton(normalise_term(text)), skeleton(visual)})


def sensitive_skeletons(texts: Iterable[str]) -> frozenset[str]:
    """Comparison set of a sensitive list: the token form of each reading of each text."""
    found = {" ".join(_tokens(s)) for text in texts for s in skeletons(text)}
    return frozenset(found - {""})


def is_sensitive_text(text: str, sensitive: frozenset[str]) -> bool:
    """Whether a text is, or contains as whole words, a sensitive term.

    Words end at anything but letters and digits, so "assassin" does not contain a three-letter
    word, while "x_y", "x-y" and single letters spaced out ("x y z", "x.y.z") are seen through.

    Args:
        text: any text.
        sensitive: result of ``sensitive_skeletons``.
    """
    return any(_contains_phrase(_tokens(s), sensitive) for s in skeletons(text))


def sensitive_terms(
    term_id: NDArray[np.integer],
    canonical_term_id: NDArray[np.integer],
    text: Iterable[str],
    is_sensitive: NDArray[np.bool_],
    extra: Iterable[str] = (),
) -> NDArray[np.bool_]:
    """Every term that must not reach a release.

    A term is sensitive when it is flagged, when its text is or contains a flagged text or one of
    ``extra`` (in any look-alike writing), or when the term it is an alias of is sensitive.

    Args:
        term_id: shape (n,), unique.
        canonical_term_id: shape (n,), values among ``term_id``.
        text: n texts.
        is_sensitive: bool of shape (n,), the dictionary's own flags.
        extra: further sensitive texts.

    Returns:
        bool of shape (n,).
    """
    texts = list(text)
    flagged = [t for t, f in zip(texts, is_sensitive, strict=True) if f]
    known = sensitive_skeletons([*flagged, *extra])
    by_text = np.fromiter((is_sensitive_text(t, known) for t in texts), bool, len(texts))
    result: NDArray[np.bool_] = np.asarray(is_sensitive, dtype=bool) | by_text
    order = np.argsort(term_id, kind="stable")
    position = order[np.searchsorted(np.asarray(term_id)[order], canonical_term_id)]
    while True:  # alias chains: one link a round
        spread: NDArray[np.bool_] = result | result[position]
        if np.array_equal(spread, result):
            return result
        result = spread


def _one_skeleton_round(text: str) -> str:
    key = disarm.skeleton_key(text, digit_policy="tr39")
    bare = "".join(c for c in unicodedata.normalize("NFD", key) if ord(c) not in _DIACRITICS)
    folded = _strip_invisible(unicodedata.normalize("NFKC", bare).casefold())
    folded = folded.translate(_CASE_CLOSURE).replace("rn", "m").replace("vv", "w")
    return " ".join(folded.split())


def _strip_invisible(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if not _is_invisible(c))


def _is_invisible(char: str) -> bool:
    if char.isascii():
        return not (char.isprintable() or char.isspace())
    category = unicodedata.category(char)
    if category == "Cf" or (category == "Cc" and not char.isspace()):
        return True
    code = ord(char)
    return any(low <= code <= high for low, high in _INVISIBLE_RANGES)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _contains_phrase(tokens: list[str], sensitive: frozenset[str]) -> bool:
    if not tokens:
        return False
    if " ".join(tokens) in sensitive:
        return True
    for start in range(len(tokens)):
        for stop in range(start + 1, min(start + MAX_PHRASE_TOKENS, len(tokens)) + 1):
            if " ".join(tokens[start:stop]) in sensitive:
                return True
    return _contains_spelled(tokens, sensitive)


def _contains_spelled(tokens: list[str], sensitive: frozenset[str]) -> bool:
    """Whether neighbouring tokens of one character spell a sensitive word."""
    for start in range(len(tokens)):
        word = ""
        for token in tokens[start : start + _MAX_SPELLED]:
            if len(token) > 1:
                break
            word += token
            if word in sensitive:
                return True
    return False

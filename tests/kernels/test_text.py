"""Term text: one normal form, and look-alikes of sensitive terms always caught (I3, Y3)."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.text import (
    is_sensitive_text,
    normalise_term,
    normalise_texts,
    sensitive_skeletons,
    sensitive_terms,
    skeleton,
)

SENSITIVE = [
    "badword",
    "very rude",
    "Nil Ñoño",
    "milksop",
    "fizzle",
    "x rated",
    "плохо",
    "色情",
    "🖕",
]
KNOWN = sensitive_skeletons([*SENSITIVE, "🖕"])

LOOK_ALIKES = {
    "a": "аɑａ𝐚α", "b": "Ьｂ𝖻", "c": "сϲⅽ", "d": "ԁⅾ𝕕", "e": "еℯｅ", "f": "ｆ𝒻ſ", "g": "ɡց",
    "h": "һℎΗ", "i": "іıⅰl1", "k": "𝗄ｋ", "l": "Iⅼ1|ӏ", "m": "ⅿΜ", "n": "ո𝓃Ν", "o": "оοօ0",
    "p": "рρ", "r": "г𝚛", "s": "ѕｓꜱ", "t": "𝐭ｔ", "u": "υս", "v": "ѵν", "w": "ԝɯ", "x": "хⅹ×",
    "y": "уүΥ", "z": "ᴢｚΖ",
}  # fmt: skip
TRICKY = "rnvwiIl1|0oOſıİßﬁ㎜ⅿⅷ№ΐΩςϒ\u0301\u0345\u200d\xad ´¨ʼn"
INVISIBLE = ["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\ufe0f", "\u202e", "\x07"]


@st.composite
def disguised(draw: st.DrawFn) -> tuple[str, str]:
    """A sensitive term and a disguise of it: case, width, look-alikes, invisible characters."""
    term = draw(st.sampled_from(SENSITIVE))
    case = draw(st.sampled_from([str.lower, str.upper, str.title, str.swapcase, str]))
    out = []
    for char in term:
        how = draw(st.integers(0, 3))
        if how == 1 and char.lower() in LOOK_ALIKES:
            char = draw(st.sampled_from(LOOK_ALIKES[char.lower()]))
        elif how == 2 and "!" <= char <= "~":
            char = chr(ord(case(char)) + 0xFEE0)
        else:
            char = case(char)
        out.append(char + draw(st.sampled_from(["", "", *INVISIBLE])))
    return term, "".join(out)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("  Golden \t Retriever ", "golden retriever"),
        ("ＪＡＧＵＡＲ", "jaguar"),
        ("Straße", "strasse"),
        ("ﬁre\u00adﬂy", "firefly"),
        ("za\u200bp\ufeff", "zap"),
        ("İ", "i̇"),
        ("a\nb", "a b"),
        ("\x1f\x00", ""),
        ("сон", "сон"),
    ],
)
def test_normalise_by_hand(given_text: str, expected: str) -> None:
    assert normalise_term(given_text) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12) | st.text(TRICKY, max_size=12))
def test_normal_form_and_skeleton_are_fixed_points(text: str) -> None:
    assert normalise_term(normalise_term(text)) == normalise_term(text)
    assert skeleton(skeleton(text)) == skeleton(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=8), st.text(" aA\t", max_size=8))))
def test_column_equals_one_by_one(texts: list[str | None]) -> None:
    expected = [None if t is None else normalise_term(t) for t in texts]
    assert normalise_texts(pa.array(texts, pa.string())).to_pylist() == expected
    chunked = pa.chunked_array([pa.array(texts, pa.string()), pa.array(texts, pa.string())])
    assert normalise_texts(chunked).to_pylist() == expected * 2


@settings(max_examples=400, deadline=None)
@given(disguised(), st.sampled_from(["{}", "a {} b", "#{}!", "old_{}", "{}-toy", "(x) {}"]))
def test_every_disguise_of_a_sensitive_term_is_caught(pair: tuple[str, str], frame: str) -> None:
    term, disguise = pair
    assert is_sensitive_text(frame.format(disguise), KNOWN), (term, ascii(disguise))


@pytest.mark.parametrize(
    "text",
    [
        "b a d w o r d",
        "b.a.d.w.o.r.d pic",
        "B-A-D-W-O-R-D",
        "VERY_RUDE",
        "the b a d w o r d",
        "色情片",
        "ha 🖕🏿",
    ],
)
def test_spaced_out_letters_and_other_separators_are_caught(text: str) -> None:
    assert is_sensitive_text(text, KNOWN)


@pytest.mark.parametrize(
    "text", ["badwordy", "very nice", "rude", "rated x", "", "...", "a b c", "jaguar", "milk sop"]
)
def test_words_end_where_words_end(text: str) -> None:
    assert not is_sensitive_text(text, KNOWN)


def test_look_alikes_share_a_skeleton_but_not_a_normal_form() -> None:
    latin, cyrillic = "caxap", "сахар"
    assert skeleton(latin) == skeleton(cyrillic)
    assert normalise_term(latin) != normalise_term(cyrillic)
    assert skeleton("modern") == skeleton("modem")


def test_aliases_of_sensitive_terms_are_sensitive() -> None:
    term_id = np.array([10, 3, 7, 5, 8, 2])
    canonical = np.array([10, 10, 3, 5, 8, 5])  # 7 -> 3 -> 10: a chain
    text = ["badword", "euphemism", "euphemisms", "cat", "bаdwоrd toy", "kitty"]
    flags = np.array([True, False, False, False, False, False])
    got = sensitive_terms(term_id, canonical, text, flags)
    assert got.tolist() == [True, True, True, False, True, False]
    extra = sensitive_terms(term_id, canonical, text, np.zeros(6, bool), extra=["CAT"])
    assert extra.tolist() == [False, False, False, True, False, True]

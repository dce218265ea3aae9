"""Dictionary n-grams against a slow oracle (I5)."""

import re
import time

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.lexicon import Candidates, build_lexicon, document_frequency, match_terms
from pipeline.kernels.text import normalise_term

TERMS = [
    "apple",
    "apple pie",
    "pie",
    "red apple",
    "golden retriever puppy",
    "Pie",
    "!!",
    "new york",
]
LEXICON = build_lexicon(np.arange(len(TERMS)), TERMS)


def batch(*rows: tuple[str | None, str | None, list[str | None] | None]) -> pa.Table:
    titles, descriptions, tags = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "title": pa.array(titles, pa.string()),
            "description": pa.array(descriptions, pa.string()),
            "tags": pa.array(tags, pa.list_(pa.string())),
        }
    )


def as_rows(c: Candidates) -> list[tuple[int, int, int, int, int]]:
    return list(
        zip(*(a.tolist() for a in (c.row, c.term_id, c.found, c.exact, c.free)), strict=True)
    )


def test_by_hand() -> None:
    got = match_terms(
        batch(
            ("Red APPLE-pie", None, ["apple", "New  York", None]),
            (None, None, None),
            ("golden retriever", "a pie; a golden retriever puppy", ["new", "york", "pie"]),
        ),
        LEXICON,
    )
    title, description, tags = 1, 2, 4
    assert as_rows(got) == [
        (0, 0, title | tags, tags, tags),  # "apple" of the title stands inside longer terms
        (0, 1, title, 0, title),
        (0, 2, title, 0, 0),
        (0, 3, title, 0, title),
        (0, 7, tags, tags, tags),
        (2, 2, description | tags, tags, description | tags),
        (2, 4, description, 0, description),
    ]
    assert got.field_words.tolist() == [[3, 0, 3], [0, 0, 0], [2, 6, 3]]
    assert LEXICON.shadowed.tolist() == [5, 6]
    assert document_frequency(got, 8).tolist() == [1, 1, 2, 1, 1, 0, 0, 1]


def test_pasted_fields_are_seen() -> None:
    got = match_terms(
        batch(
            ("a big red apple", "A big, red apple!", ["red", "a big apple"]),
            ("red apple", "red apple", ["red apple"]),
            ("one two three four", "x", ["one two", "three", "four"]),
        ),
        LEXICON,
    )
    assert got.field_copies.tolist() == [[2, 1, 0], [0, 0, 0], [4, 0, 1]]


def oracle(row: tuple[str | None, str | None, list[str] | None]) -> dict[int, list[int]]:
    def words(text: str) -> list[str]:
        return re.findall(r"\w+", normalise_term(text))

    dictionary: dict[tuple[str, ...], int] = {}
    for i, term in enumerate(TERMS):
        if words(term):
            dictionary.setdefault(tuple(words(term)), i)
    result: dict[int, list[int]] = {}
    for field, segments in enumerate([[row[0] or ""], [row[1] or ""], row[2] or []]):
        for segment in segments:
            tokens = words(segment)
            spans = [
                (i, j)
                for i in range(len(tokens))
                for j in range(i + 1, len(tokens) + 1)
                if tuple(tokens[i:j]) in dictionary
            ]
            for i, j in spans:
                masks = result.setdefault(dictionary[tuple(tokens[i:j])], [0, 0, 0])
                masks[0] |= 1 << field
                masks[1] |= (1 << field) * (j - i == len(tokens))
                longer = any(a <= i and j <= b and b - a > j - i for a, b in spans)
                masks[2] |= (1 << field) * (not longer)
    return result


PHRASE = st.lists(
    st.sampled_from(
        ["apple", "Pie", "red", "golden", "retriever", "puppy", "new", "york", "é", "-"]
    ),
    max_size=6,
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.none() | PHRASE, st.none() | PHRASE, st.lists(PHRASE, max_size=3))))
def test_equals_the_slow_reading(rows: list[tuple[str | None, str | None, list[str]]]) -> None:
    got = match_terms(batch(*rows), LEXICON)
    expected = [(i, t, *m) for i, r in enumerate(rows) for t, m in sorted(oracle(r).items())]
    assert as_rows(got) == expected


def test_sliced_and_chunked_batches_give_the_same() -> None:
    rows = [
        ("red apple pie", "pie", ["apple"]),
        ("new york", None, None),
        (None, "pie", ["new york"]),
    ]
    whole = match_terms(batch(*rows), LEXICON)
    chunked = pa.concat_tables([batch(rows[0]), batch(*rows[1:])])
    assert as_rows(match_terms(chunked, LEXICON)) == as_rows(whole)
    sliced = match_terms(batch(rows[0], *rows).slice(1), LEXICON)
    assert as_rows(sliced) == as_rows(whole)


def test_dictionary_size_does_not_matter() -> None:
    table = batch(*[("red apple pie with golden cream", None, ["apple", "kitchen"])] * 3000)
    big = build_lexicon(np.arange(50_000), [f"filler{i} word{i % 7}" for i in range(50_000)])
    begin = time.perf_counter()
    match_terms(table, big)
    assert time.perf_counter() - begin < 2.0

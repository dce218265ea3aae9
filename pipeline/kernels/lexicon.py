"""Dictionary n-grams in text fields, found by hashing words and walking a trie of word ids (I5).

A batch of images is one stream of words; every step of the walk handles all positions at once, so
the cost is linear in the number of words (times the length of the longest term for the few
positions that start one) and does not depend on the size of the dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.text import normalise_texts

FIELDS: Final = ("title", "description", "tags")
"""Text fields of an image; bit f of a mask stands for FIELDS[f]."""

NUM_FIELDS: Final = len(FIELDS)
_SEPARATORS = r"[^\pL\pN\pM]+"


@dataclass(frozen=True)
class Lexicon:
    """A dictionary ready for matching: a trie of words in flat arrays.

    Attributes:
        words: every word of every term, unique.
        root: int32 (num_words,), node reached by a term's first word, -1 for none.
        edges: int64 (num_edges,), ascending ``node * num_words + word``.
        targets: int32 (num_edges,), node an edge leads to.
        node_term: int32 (num_nodes,), term that ends at a node, -1 for none.
        term_id: int32 (num_terms,), ascending: the terms that can be found.
        num_words_of: int8 (max term_id + 1,), words of each term.
        shadowed: term_ids that read like a term of lower id and are never found.
        max_words: words of the longest term.
    """

    words: pa.StringArray
    root: NDArray[np.int32]
    edges: NDArray[np.int64]
    targets: NDArray[np.int32]
    node_term: NDArray[np.int32]
    term_id: NDArray[np.int32]
    num_words_of: NDArray[np.int8]
    shadowed: NDArray[np.int32]
    max_words: int


@dataclass(frozen=True)
class Candidates:
    """Terms found in the text of a batch of images; one item a (row, term), ascending, no repeats.

    Attributes:
        row: int64 (n,), row of the batch.
        term_id: int32 (n,).
        found: uint8 (n,), mask of the fields the term was found in.
        exact: uint8 (n,), fields where it is the whole title, description or one whole tag.
        free: uint8 (n,), fields with an occurrence that no longer dictionary term covers.
        field_words: int32 (num_rows, 3), words of each field of each row.
        field_copies: uint8 (num_rows, 3), mask of the *other* fields with the same words in the
            same order, for fields of ``MIN_COPY_WORDS`` words and more.
    """

    row: NDArray[np.int64]
    term_id: NDArray[np.int32]
    found: NDArray[np.uint8]
    exact: NDArray[np.uint8]
    free: NDArray[np.uint8]
    field_words: NDArray[np.int32]
    field_copies: NDArray[np.uint8]

    @property
    def num_rows(self) -> int:
        """Images of the batch, with or without candidates."""
        return len(self.field_words)


MIN_COPY_WORDS: Final = 4
"""Shorter fields may agree word for word by themselves; longer ones were pasted."""


def build_lexicon(term_id: NDArray[np.integer], text: pa.Array | list[str]) -> Lexicon:
    """Make a lexicon of terms.

    Args:
        term_id: shape (n,), non-negative, in any order.
        text: n term texts; a term without a single letter or digit can not be found.

    Returns:
        The lexicon. Of terms that normalise to the same words the lowest term_id is found.
    """
    order = np.argsort(term_id, kind="stable")
    texts = pa.array(text, pa.string()) if isinstance(text, list) else text
    split = _split_words(texts.take(pa.array(order)))
    sequences: list[list[str]] = [[w for w in s or [] if w] for s in split.to_pylist()]
    words = sorted({w for s in sequences for w in s})
    code = {w: i for i, w in enumerate(words)}
    ids = np.asarray(term_id)[order].astype(np.int32)
    trie: dict[int, int] = {}
    root = np.full(len(words), -1, np.int32)
    node_term: list[int] = []
    shadowed: list[int] = []
    num_words_of = np.zeros(int(ids[-1]) + 1 if len(ids) else 0, np.int8)
    for term, sequence in zip(ids.tolist(), sequences, strict=True):
        node = -1
        for depth, word in enumerate(code[w] for w in sequence):
            known = int(root[word]) if depth == 0 else trie.get(node * len(words) + word, -1)
            if known < 0:
                known = len(node_term)
                node_term.append(-1)
                if depth == 0:
                    root[word] = known
                else:
                    trie[node * len(words) + word] = known
            node = known
        if node < 0 or node_term[node] >= 0:
            shadowed.append(term)
        else:
            node_term[node] = term
            num_words_of[term] = min(len(sequence), 127)
    edges = np.fromiter(sorted(trie), np.int64, len(trie))
    return Lexicon(
        words=pa.array(words, pa.string()),
        root=root,
        edges=edges,
        targets=np.fromiter((trie[e] for e in edges.tolist()), np.int32, len(trie)),
        node_term=np.array(node_term, np.int32),
        term_id=np.setdiff1d(ids, np.array(shadowed, np.int32)),
        num_words_of=num_words_of,
        shadowed=np.array(shadowed, np.int32),
        max_words=max((len(s) for s in sequences), default=0),
    )


def match_terms(batch: pa.Table, lexicon: Lexicon) -> Candidates:
    """Find every dictionary term in the text of each image.

    All matches are kept, also those inside a longer one ("apple" in "apple pie"): whether a covered
    match is worth anything is for the scoring model, which sees it as a feature. Matches do not
    cross from one tag into the next.

    Args:
        batch: columns title string, description string, tags list<string>; nulls are no text.
        lexicon: the dictionary.
    """
    stream = _word_stream(batch, lexicon)
    start, length, term = _walk(stream, lexicon)
    is_free = ~_is_covered(start, length, len(stream.word))
    segment = stream.segment[start]
    is_exact = length == stream.length[segment]
    bit = (1 << stream.field_of[segment]).astype(np.uint8)
    row = stream.row_of[segment]
    width = np.int64(max(len(lexicon.num_words_of), 1))
    key = row * width + term
    order = np.argsort(key, kind="stable")
    key = key[order]
    heads = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.zeros(0, np.int64)

    def gather(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not len(heads):
            return np.zeros(0, np.uint8)
        return np.asarray(np.bitwise_or.reduceat(bits[order], heads), np.uint8)

    words, copies = _field_shape(stream, batch.num_rows)
    return Candidates(
        row=key[heads] // width,
        term_id=(key[heads] % width).astype(np.int32),
        found=gather(bit),
        exact=gather(bit * is_exact.astype(np.uint8)),
        free=gather(bit * is_free.astype(np.uint8)),
        field_words=words,
        field_copies=copies,
    )


def document_frequency(candidates: Candidates, num_ids: int) -> NDArray[np.int64]:
    """Images of the batch each term was found in; partial counts add up.

    Returns:
        int64 of shape (num_ids,), indexed by term_id.
    """
    return np.bincount(candidates.term_id, minlength=num_ids).astype(np.int64)


@dataclass(frozen=True)
class _Stream:
    word: NDArray[np.int32]  # (num_words,) word id or -1
    segment: NDArray[np.int64]  # (num_words,) segment of the word
    first: NDArray[np.int64]  # (num_segments,) first word
    length: NDArray[np.int64]  # (num_segments,) words
    row_of: NDArray[np.int64]  # (num_segments,)
    field_of: NDArray[np.int64]  # (num_segments,)


def _split_words(texts: pa.Array) -> pa.ListArray:
    spaced = pc.replace_substring_regex(
        normalise_texts(texts), pattern=_SEPARATORS, replacement=" "
    )
    return pc.split_pattern(pc.ascii_trim(spaced, characters=" "), " ")


def _word_stream(batch: pa.Table, lexicon: Lexicon) -> _Stream:
    lists = batch["tags"].cast(pa.list_(pa.string())).chunks
    tags = pa.concat_arrays(lists) if lists else pa.array([], pa.list_(pa.string()))
    rows = np.arange(batch.num_rows)
    parts = [*(batch[f].cast(pa.string()).chunks for f in FIELDS[:2]), [tags.flatten()]]
    row_of = np.concatenate([rows, rows, np.asarray(pc.list_parent_indices(tags))])
    field_of = np.repeat(np.arange(NUM_FIELDS), [len(rows), len(rows), len(row_of) - 2 * len(rows)])
    texts = [pc.fill_null(c, "") for chunks in parts for c in chunks]
    split = _split_words(pa.concat_arrays([t.cast(pa.string()) for t in texts]))
    flat = split.flatten()
    word = pc.fill_null(pc.index_in(flat, value_set=lexicon.words), -1)
    length = split.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    is_empty = np.asarray(pc.equal(flat, ""))  # splitting "" gives one empty word
    segment = np.repeat(np.arange(len(length)), length)
    length = length - np.bincount(segment[is_empty], minlength=len(length))
    kept = ~is_empty
    return _Stream(
        word=word.to_numpy(zero_copy_only=False).astype(np.int32)[kept],
        segment=segment[kept],
        first=np.r_[0, np.cumsum(length)[:-1]].astype(np.int64) if len(length) else length,
        length=length,
        row_of=row_of.astype(np.int64),
        field_of=field_of,
    )


def _walk(
    stream: _Stream, lexicon: Lexicon
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Start, length and term of every match."""
    starts, lengths, terms = [], [], []
    position: NDArray[np.int64] = np.flatnonzero(stream.word >= 0).astype(np.int64)
    node: NDArray[np.int32] = lexicon.root[stream.word[position]]
    position, node = position[node >= 0], node[node >= 0]
    stop = stream.first + stream.length
    for step in range(1, lexicon.max_words + 1):
        term = lexicon.node_term[node]
        hit = term >= 0
        starts.append(position[hit])
        terms.append(term[hit])
        lengths.append(np.full(int(hit.sum()), step, np.int64))
        inside = position + step < stop[stream.segment[position]]
        position, node = position[inside], node[inside]
        word = stream.word[position + step]
        known = word >= 0
        position, node, word = position[known], node[known], word[known]
        if not len(position) or not len(lexicon.edges):
            break
        key = node.astype(np.int64) * len(lexicon.words) + word
        at = np.minimum(np.searchsorted(lexicon.edges, key), len(lexicon.edges) - 1)
        is_edge = lexicon.edges[at] == key
        position, node = position[is_edge], lexicon.targets[at[is_edge]]
    if not starts:
        none = np.zeros(0, np.int64)
        return none, none, none
    return np.concatenate(starts), np.concatenate(lengths), np.concatenate(terms).astype(np.int64)


def _is_covered(
    start: NDArray[np.int64], length: NDArray[np.int64], num_words: int
) -> NDArray[np.bool_]:
    """Whether a longer match holds each match."""
    reach = np.zeros(num_words + 1, np.int64)  # furthest end of the matches that start at a word
    np.maximum.at(reach, start, start + length)
    before = np.maximum.accumulate(np.r_[0, reach[:-1]])  # the same for all earlier words
    end = start + length
    return np.asarray((before[start] >= end) | (reach[start] > end))


def _field_shape(stream: _Stream, num_rows: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Words of each (row, field), and which fields repeat each other word for word."""
    slot = stream.row_of * NUM_FIELDS + stream.field_of
    size = num_rows * NUM_FIELDS
    words = np.bincount(slot, weights=stream.length, minlength=size).astype(np.int64)
    of_word = slot[stream.segment]
    order = np.argsort(of_word, kind="stable")
    first = np.r_[0, np.cumsum(words)[:-1]] if size else words
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(first, words)
    code = hash_ints(stream.word.astype(np.int64) * 65_536 + place % 65_536, 0, "field words")
    signature = np.zeros(size, np.uint64)
    with np.errstate(over="ignore"):
        np.add.at(signature, of_word, code)
    grid, counts = signature.reshape(-1, NUM_FIELDS), words.reshape(-1, NUM_FIELDS)
    copies = np.zeros((num_rows, NUM_FIELDS), np.uint8)
    for a in range(NUM_FIELDS):
        for b in range(NUM_FIELDS):
            same = (grid[:, a] == grid[:, b]) & (counts[:, a] == counts[:, b])
            if a != b:
                copies[:, a] |= np.where(same & (counts[:, a] >= MIN_COPY_WORDS), 1 << b, 0).astype(
                    np.uint8
                )
    return counts.astype(np.int32), copies

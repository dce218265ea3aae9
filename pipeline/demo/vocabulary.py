"""The demo's term dictionary, made from the titles and tags of its own pictures.

Candidates are whole titles, whole tags and their single words. A candidate becomes a term when it
is found in enough pictures; skin-tone variants do not count, they repeat their base. Plurals and
spelling variants become aliases of their most frequent form.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.demo.records import TERMS, Picture
from pipeline.kernels.lexicon import build_lexicon, document_frequency, match_terms
from pipeline.kernels.text import is_sensitive_text, normalise_term, sensitive_skeletons

MIN_PICTURES = 3
"""Pictures that must hold an English term."""
MIN_PICTURES_FOREIGN = 2
"""The same for other languages: Italian and French drawings have few speakers here."""
MAX_WORDS = 4
LANGUAGES = ("it", "fr", "es", "de", "pt", "nl", "pl")
"""Languages that drawers of the clip art library wrote in, besides English."""
MIN_ENGLISH_ZIPF = 2.6
"""Frequency (log10 a billion words) of a word that is English whatever else it is."""
MAX_FOREIGN_LEAD = 1.5
"""How much more frequent a word may be in another language and still count as English."""

_SEPARATORS = re.compile(r"[\W_]+")
_STOP_TEXT = (
    "a about after all am an and any are as at be but by can de del di do el en et for from had "
    "has have he her his how i if in into is it its la le les me more my no non not of off on "
    "or our out over per so some than that the their them then there these they this to too un "
    "up us very was we were what when where which who why will with without you your svg bw aj "
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_PLURAL_EXCEPTIONS_TEXT = (
    "glasses news series species stairs scissors pants jeans shorts goods lens christmas chess "
    "glass grass dress cross bus gas class boss address compass princess mattress tennis virus "
    "cactus octopus asparagus physics mathematics maths politics gymnastics athletics graphics "
    "arms customs spaces briefs tights trousers clothes binoculars headquarters means as is us "
    "paris mars venus texas wales hummus abacus atlas canvas christmas citrus circus walrus "
    "hibiscus status campus bonus plus minus focus chorus genius "
)
_PLURAL_EXCEPTIONS = frozenset(_PLURAL_EXCEPTIONS_TEXT.split())
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "leaves": "leaf",
    "wolves": "wolf",
    "knives": "knife",
    "loaves": "loaf",
    "halves": "half",
    "shelves": "shelf",
    "cacti": "cactus",
    "octopi": "octopus",
    "oxen": "ox",
}
_SAME = {
    "aeroplane": "airplane",
    "auto": "car",
    "automobile": "car",
    "bike": "bicycle",
    "baloon": "balloon",
    "blond": "blonde",
    "colour": "color",
    "coloured": "colored",
    "favourite": "favorite",
    "grey": "gray",
    "jewellery": "jewelry",
    "moustache": "mustache",
    "telephone": "phone",
    "television": "tv",
    "theatre": "theater",
    "tyre": "tire",
    "xmas": "christmas",
    "yoghurt": "yogurt",
}
"""Variant -> common form; either may be the canonical term, whichever is more frequent."""
_LANGUAGE_OVERRIDES = {
    "casa": "it",
    "discordia": "en",
    "heart-ballons": "en",
    "heart ballons": "en",
    "io": "en",
    "leone": "it",
    "openoffice": "en",
    "rubik": "en",
    "rubik s cube": "en",
    "vino": "it",
}
"""Where word frequencies mislead: looked through by hand, keyed by the term's words."""

WordFrequency = Callable[[str, str], float]
"""(text, language) -> frequency as log10 of occurrences in a billion words, 0 for unknown."""


@dataclass(frozen=True)
class Candidate:
    """A possible term: its words, its most frequent spelling, and the pictures that hold it."""

    words: tuple[str, ...]
    text: str
    pictures: int
    is_known_english: bool


def words_of(text: str) -> tuple[str, ...]:
    """Normalised words, as the dictionary matcher splits them."""
    return tuple(w for w in _SEPARATORS.split(normalise_term(text)) if w)


def _is_term(words: Sequence[str]) -> bool:
    if not 1 <= len(words) <= MAX_WORDS or not any(re.search(r"[^\W\d]{2}", w) for w in words):
        return False
    return len(words) > 1 or words[0] not in _STOP_WORDS


def collect(pictures: Sequence[Picture], english_source: str) -> list[Candidate]:
    """All candidates with the number of pictures each is found in, ascending by words.

    Args:
        pictures: without skin-tone variants.
        english_source: start of the source whose words are known to be English.
    """
    spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    english: set[tuple[str, ...]] = set()
    for picture in pictures:
        for text in filter(None, [picture.title, *picture.tags]):
            whole = words_of(text)
            for words in {whole, *((w,) for w in whole)}:
                if _is_term(words):
                    spelling = normalise_term(text).replace("_", " ")
                    spellings[words][spelling if words == whole else words[0]] += 1
                    if picture.source.startswith(english_source):
                        english.add(words)
    order = sorted(spellings)
    texts = [min(spellings[w].items(), key=lambda s: (-s[1], s[0]))[0] for w in order]
    counts = _document_frequency(pictures, [" ".join(w) for w in order])
    return [
        Candidate(w, t, int(n), w in english) for w, t, n in zip(order, texts, counts, strict=True)
    ]


def _document_frequency(pictures: Sequence[Picture], texts: list[str]) -> Iterable[int]:
    lexicon = build_lexicon(np.arange(len(texts)), texts)
    assert not len(lexicon.shadowed), "candidates have distinct words"
    batch = pa.table(
        {
            "title": pa.array([p.title for p in pictures], pa.string()),
            "description": pa.nulls(len(pictures), pa.string()),
            "tags": pa.array([list(p.tags) for p in pictures], pa.list_(pa.string())),
        }
    )
    counts: list[int] = document_frequency(match_terms(batch, lexicon), len(texts)).tolist()
    return counts


def language_of(candidate: Candidate, frequency: WordFrequency) -> str:
    """ISO 639-1 code: English unless another language is much more likely."""
    text = " ".join(candidate.words)
    if text in _LANGUAGE_OVERRIDES:
        return _LANGUAGE_OVERRIDES[text]
    if candidate.is_known_english:
        return "en"
    english = frequency(text, "en")
    other, language = max((frequency(text, code), code) for code in LANGUAGES)
    lead = other - english
    if lead > MAX_FOREIGN_LEAD or (english < MIN_ENGLISH_ZIPF and lead > 0.5):
        return language
    return "en"


def base_form(words: tuple[str, ...]) -> tuple[str, ...]:
    """Singular, common spelling of a term: the key under which aliases meet."""
    words = tuple(_SAME.get(w, w) for w in words)
    words = words_of(_SAME.get(" ".join(words), " ".join(words)))
    last = words[-1]
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last in _SAME.values():
        pass
    elif last not in _PLURAL_EXCEPTIONS and len(last) > 3 and last.isascii():
        if last.endswith("ies") and len(last) > 4:
            last = last.removesuffix("ies") + "y"
        elif re.search(r"(ch|sh|ss|x|zz|[^aeiou]o)es$", last):
            last = last.removesuffix("es")
        elif last.endswith("s") and not last.endswith(("ss", "us", "is")):
            last = last.removesuffix("s")
    return (*words[:-1], _SAME.get(last, last))


def _alias_groups(kept: Sequence[Candidate], language: dict[str, str]) -> dict[str, str]:
    """Text of each term -> text of its canonical term (most pictures, then shortest, then text).

    Spellings with and without spaces meet too ("ice cream", "icecream"); terms of different
    languages do not.
    """
    groups: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for c in kept:
        code = language[c.text]
        form = base_form(c.words) if code == "en" else c.words
        groups[code, "".join(form)].append(c)
    canonical: dict[str, str] = {}
    for members in groups.values():
        best = min(members, key=lambda c: (-c.pictures, len(c.text), c.text))
        canonical.update({c.text: best.text for c in members})
    return canonical


def build_terms(
    pictures: Sequence[Picture],
    sensitive_words: Iterable[str],
    frequency: WordFrequency,
    english_source: str,
) -> pa.Table:
    """The dictionary table.

    Args:
        pictures: all pictures of the corpus, validation included; variants are passed over.
        sensitive_words: texts that must never be labels.
        frequency: see ``WordFrequency``.
        english_source: start of the source whose words are known to be English.

    Returns:
        Table of schema ``TERMS``; term_id counts from 0 in order of falling number of pictures,
        then text. A sensitive term is kept, flagged, however rare.
    """
    bad = sensitive_skeletons(sensitive_words)
    language: dict[str, str] = {}
    kept: list[Candidate] = []
    for c in collect([p for p in pictures if not p.is_variant], english_source):
        code = language_of(c, frequency)
        enough = MIN_PICTURES if code == "en" else MIN_PICTURES_FOREIGN
        if c.pictures >= enough or is_sensitive_text(c.text, bad):
            kept.append(c)
            language[c.text] = code
    kept.sort(key=lambda c: (-c.pictures, c.text))
    canonical = _alias_groups(kept, language)
    term_id = {c.text: i for i, c in enumerate(kept)}
    assert len(term_id) == len(kept), "term texts are distinct"
    return pa.table(
        {
            "term_id": list(range(len(kept))),
            "text": [c.text for c in kept],
            "language": [language[c.text] for c in kept],
            "canonical_term_id": [term_id[canonical[c.text]] for c in kept],
            "is_sensitive": [is_sensitive_text(c.text, bad) for c in kept],
        },
        schema=TERMS,
    )

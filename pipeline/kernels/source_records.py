"""Free-form records of strangers (CSV rows, JSON objects, Parquet rows) as title, text, keywords.

Columns go by their usual names; the first that is there and not empty gives a text, all of them
together give the keywords. Source: SPEC-dataset I4; the names are those of img2dataset, Hugging
Face datasets (imagefolder, ClassLabel) and COCO-like exports.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pipeline.kernels.text import normalise_term

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "file_name": ("file_name", "filename", "file", "path", "filepath", "image_path", "image"),
    "title": ("title", "name"),
    "description": ("caption", "text", "description", "captions", "alt_text", "alt", "txt"),
    "keywords": (
        "keywords", "tags", "labels", "label", "categories", "category", "classes", "class",
    ),
    "source": ("url", "source_url", "source"),
    "licence": ("licence", "license"),
}  # fmt: skip
"""Field -> columns that usually hold it, best first."""
_SPLIT = re.compile(r"[,;|\n]")
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class Keyword:
    """A keyword with the confidence that the source gives it; 1 where people gave it."""

    text: str
    score: float = 1.0


@dataclass(frozen=True)
class Texts:
    """What a source says about one picture.

    Attributes:
        title, description, source, licence: None where it says nothing.
        keywords: in the source's order, each normalised text once with its best score.
    """

    title: str | None = None
    description: str | None = None
    source: str | None = None
    licence: str | None = None
    keywords: tuple[Keyword, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing from which a label could come."""
        return not (self.title or self.description or self.keywords)

    @property
    def is_utf8(self) -> bool:
        """Whether all of it can be written; JSON can name halves of surrogate pairs."""
        words = [word.text for word in self.keywords]
        texts = (self.title, self.description, self.source, self.licence, *words)
        return all(is_utf8(text) for text in texts if text)


def is_utf8(text: str) -> bool:
    """Whether a text has a form in UTF-8: no half of a surrogate pair stands in it."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def read_texts(
    records: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> Texts:
    """Texts of a picture out of its records.

    Args:
        records: by precedence, e.g. side-car before table.
        columns: field of ``FIELDS`` -> column, where a source's own names are told.
        class_names: column -> names of the classes that its integers stand for.
    """
    found: dict[str, str | None] = {}
    for name in ("title", "description", "source", "licence"):
        texts = (_text(r.get(c)) for c in _columns_of(name, columns) for r in records)
        found[name] = next((text for text in texts if text), None)
    best: dict[str, Keyword] = {}
    for record in records:
        for column in _columns_of("keywords", columns):
            names = (class_names or {}).get(column)
            for word in _keywords(record.get(column), names):
                key = normalise_term(word.text)
                if key and (key not in best or best[key].score < word.score):
                    best[key] = word
    return Texts(**found, keywords=tuple(best.values()))


def file_name_of(record: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Name of the picture's file that a record states."""
    names = (record.get(column) for column in _columns_of("file_name", columns))
    return next((name for name in names if isinstance(name, str) and name), None)


def parse_object(data: bytes | str) -> dict[str, Any] | None:
    """A JSON object; None for anything else, however it is broken."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def keyword_terms(texts: Iterable[Texts], max_words: int) -> Counter[str]:
    """Normalised keywords that can be terms -> pictures that have them."""
    found: Counter[str] = Counter()
    for text in texts:
        keys = {normalise_term(word.text) for word in text.keywords}
        found.update(key for key in keys if len(key.split()) <= max_words)
    return found


def caption_terms(texts: Iterable[Texts]) -> Counter[str]:
    """Words and pairs of neighbouring words of titles and captions -> pictures that have them.

    A word has three letters or more and is none of scikit-learn's English stop words; pairs do not
    reach over a word that is left out.
    """
    found: Counter[str] = Counter()
    for text in texts:
        terms: set[str] = set()
        for value in (text.title, text.description):
            terms |= _word_terms(normalise_term(value)) if value else set()
        found.update(terms)
    return found


def _word_terms(text: str) -> set[str]:
    terms = set()
    before: tuple[str, int] | None = None
    for match in _WORD.finditer(text):
        word = match[0]
        if word in ENGLISH_STOP_WORDS:
            continue
        terms.add(word)
        if before is not None and text[before[1] : match.start()] == " ":
            terms.add(f"{before[0]} {word}")
        before = (word, match.end())
    return terms


def _columns_of(name: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    return (columns[name],) if name in columns else FIELDS[name]


def _text(value: Any) -> str | None:
    """A value as text: strings as they are, lists of strings (several captions) line by line."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list):
        return "\n".join(v.strip() for v in value if isinstance(v, str) and v.strip()) or None
    return None


def _keywords(value: Any, names: Sequence[str] | None) -> list[Keyword]:
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [Keyword(names[value] if names and 0 <= value < len(names) else f"class {value}")]
    if isinstance(value, str):
        listed = json_list(value)
        parts = _SPLIT.split(value) if listed is None else listed
        return [Keyword(part.strip()) for part in map(str, parts) if part.strip()]
    if isinstance(value, list):
        return [word for item in value for word in _item(item, names)]
    return []


def _item(item: Any, names: Sequence[str] | None) -> list[Keyword]:
    """One entry of a list: a text that is not split again, a class, or a text with its score."""
    if isinstance(item, str):
        return [Keyword(item.strip())] if item.strip() else []
    if not isinstance(item, dict):
        return _keywords(item, names) if isinstance(item, int) else []
    text = next((item[k] for k in ("term", "text", "name", "label") if item.get(k)), None)
    score = next((item[k] for k in ("score", "confidence") if item.get(k) is not None), 1.0)
    sound = isinstance(text, str) and isinstance(score, int | float) and math.isfinite(score)
    return [Keyword(str(text).strip(), float(score))] if sound else []


def json_list(text: str) -> list[Any] | None:
    """The list that a CSV cell writes as JSON; None where it is no list."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None

"""Pictures of the Debian clip art packages: object folders, public domain file by file.

The SVG package carries the metadata (title, keywords, licence), the PNG package the pictures.
"""

from __future__ import annotations

import html
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from pipeline.demo import pictures
from pipeline.demo.interests import folder_interests
from pipeline.demo.records import Harvest, Picture

logger = logging.getLogger(__name__)

FOLDERS = (
    "animals",
    "buildings",
    "buttons",
    "computer",
    "containers",
    "decorations",
    "education",
    "electronics",
    "food",
    "office",
    "plants",
    "recreation",
    "science",
    "tools",
    "transportation",
    "unsorted",
)
"""Folders of objects. Left out whole: people, flags and other signs, maps, bare shapes, logos."""
NOT_FOLDERS = (
    "computer/icons",
    "computer/connectors",
    "recreation/religion",
    "transportation/vehicles/hummers",
)
"""Inside those: a thousand theme icons, religious symbols, a folder of links to its neighbour."""

EXCLUDED_WORDS = {
    "sunwheel": "political symbol",
    "lauburu": "political symbol",
    "gwen": "flag",
    "welsh": "flag",
    "drapeau": "flag",
    "flag": "flag",
    "bandiera": "flag",
    "domo": "character of another work",
    "vgcats": "character of another work",
    "xbill": "character of another work",
    "gallows": "cruelty",
    "leisler": "portrait",
    "roman": "portrait",
    "lakshman": "portrait",
    "umano": "nude figure",
    "wmd": "political",
    "done": "political",
}
"""Words of a file's name or title that looking at all pictures ruled out, and why."""

PUBLIC_DOMAIN = (
    "http://web.resource.org/cc/PublicDomain",
    "http://creativecommons.org/licenses/publicdomain/",
    "Public Domain",
)
SERIES_TITLE = re.compile(
    r"AIGA_Symbol_Signs|(SVG )?Road Signs|Etiquette Icons|R16 sibmission|Various Cliparts"
    r"|Clipart by Nicu Buculei - .*|blueberry - iconset|Homes Clipart|Sallite|balloons-aj"
    r"|Lemon SVG theme|Menu Clip Art Collection.*|.*rollandin.*|C Rollandin Francesco",
    re.IGNORECASE,
)
"""Titles that name a series, a template or an author and not the picture."""
MAX_PIXELS = 64_000_000
"""Drawings on larger sheets are left out before they are decoded."""
_STEM_PREFIXES = ("aiga", "bb", "gnome", "fs", "contour", "fruitcollection")
_STEM_SUFFIXES = ("bw", "ganson", "zazou", "aj", "r", "md")
_EMPTY_TAGS = frozenset({"", "hash", "unsorted"})


@dataclass(frozen=True)
class Metadata:
    """What one SVG says about itself."""

    licences: tuple[str, ...]
    title: str | None
    description: str | None
    tags: tuple[str, ...]
    creators: tuple[str, ...]
    links_out: bool


def _local(tag: object) -> str:
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _clean(text: str | None) -> str:
    return " ".join(html.unescape(html.unescape(text or "")).replace("_", " ").split())


def read_metadata(path: Path) -> Metadata:
    """Read the RDF block of one SVG.

    Raises:
        xml.etree.ElementTree.ParseError: the file is not XML.
    """
    root = ElementTree.parse(path).getroot()
    licences: list[str] = []
    tags: list[str] = []
    creators: list[str] = []
    title = description = None
    links_out = False
    for element in root.iter():
        name = _local(element.tag)
        if name == "license":
            resource = next((v for k, v in element.attrib.items() if _local(k) == "resource"), None)
            licences.append((resource or element.text or "").strip())
        elif name == "Work":
            for child in element:
                if _local(child.tag) == "title" and title is None:
                    title = (child.text or "").strip()
                if _local(child.tag) == "description":
                    description = _clean(child.text)
        elif name == "creator":
            creators += [_clean(e.text).lower() for e in element.iter() if _local(e.tag) == "title"]
        elif name == "li":
            tags.append(_clean(element.text))
        elif name == "image":
            target = next((v for k, v in element.attrib.items() if _local(k) == "href"), "data:")
            links_out |= not target.startswith("data:")
    kept = tuple(dict.fromkeys(t for t in tags if t.lower() not in _EMPTY_TAGS))
    return Metadata(tuple(licences), title, description, kept, tuple(creators), links_out)


def title_of(stem: str, found: Metadata) -> str | None:
    """The SVG's title, or the words of its file name where the title names only a series.

    Args:
        stem: file name without suffix, e.g. ``contour_bat`` or ``bear_jarno_vasamaa_01``.
        found: the SVG's metadata; its creators' names are cut from the file name.
    """
    title = _clean(found.title)
    if title and "@" not in title and not SERIES_TITLE.fullmatch((found.title or "").strip()):
        return title
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|\d+", " ", stem).replace("-", " ").replace("_", " ")
    parts = [w.lower() for w in words.split()]
    while parts and parts[0] in _STEM_PREFIXES:
        parts.pop(0)
    names = " ".join(found.creators).replace("-", " ").split()
    while parts and (
        parts[-1] in _STEM_SUFFIXES or any(name.startswith(parts[-1]) for name in names)
    ):
        parts.pop()
    return " ".join(parts) or None


def description_of(found: Metadata, title: str | None) -> str | None:
    """The SVG's description unless it repeats the title or is an address."""
    text = found.description
    if not text or "@" in text or "http" in text or (title and text.lower() == title.lower()):
        return None
    return text


def _refusal(stem_path: str, found: Metadata) -> str | None:
    if not found.licences or any(x not in PUBLIC_DOMAIN for x in found.licences):
        return "licence"
    if not found.tags:
        return "no_keywords"
    if found.links_out:
        return "links_to_missing_picture"
    name = stem_path.rsplit("/", 1)[1] + " " + (found.title or "")
    if set(re.split(r"[^a-z]+", name.lower())) & EXCLUDED_WORDS.keys():
        return "excluded_by_hand"
    return None


def _inside(relative: str) -> bool:
    folder = relative.rpartition("/")[0] + "/"
    wanted = any(folder.startswith(f + "/") for f in FOLDERS)
    return wanted and not any(folder.startswith(f + "/") for f in NOT_FOLDERS)


def _read_png(root: Path, path: Path) -> tuple[bytes | None, str]:
    """WebP bytes of a PNG (links followed, inside ``root`` only), or None and the reason."""
    real = path.resolve()
    if not real.is_relative_to(root.resolve()) or not real.is_file():
        return None, "no_png"
    width, height = pictures.png_size(real)
    if width * height > MAX_PIXELS:
        return None, "too_many_pixels"
    with Image.open(real) as image:
        trimmed = pictures.trim(pictures.on_white(image))
    if trimmed is None:
        return None, "blank_or_too_small"
    small = pictures.shrink(trimmed)
    if not pictures.is_visible(small):
        return None, "blank_or_too_small"
    return pictures.webp(small), ""


def harvest(root: Path) -> Harvest:
    """Read every picture of the object folders.

    The same file often stands in several folders, as a link: those natural exact duplicates are
    kept, each with its own image_id.

    Args:
        root: where both packages are unpacked.

    Returns:
        Pictures in order of image_id and the number left out by reason.
    """
    svg_root = root / "usr/share/openclipart/svg"
    png_root = root / "usr/share/openclipart/png"
    names = [
        os.path.relpath(os.path.join(folder, file), svg_root)
        for folder, _, files in os.walk(svg_root)
        for file in files
        if file.endswith(".svg")
    ]
    result = Harvest()
    for relative in sorted(n for n in names if _inside(n)):
        stem_path = relative.removesuffix(".svg")
        found = read_metadata(svg_root / relative)
        reason = _refusal(stem_path, found)
        data = None
        if reason is None:
            data, reason = _read_png(png_root, png_root / f"{stem_path}.png")
        if data is None:
            result.left_out[str(reason)] += 1
            continue
        title = title_of(stem_path.rsplit("/", 1)[1], found)
        image_id = f"openclipart/{stem_path}.png"
        result.pictures.append(
            Picture(
                image_id=image_id,
                data=data,
                title=title,
                description=description_of(found, title),
                tags=found.tags,
                source="Open Clip Art Library 0.18 (Debian openclipart)",
                licence="Public domain",
                interests=folder_interests(stem_path.rsplit("/", 1)[0]),
            )
        )
    logger.info("event=harvested source=openclipart pictures=%d", len(result.pictures))
    return result

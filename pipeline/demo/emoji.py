"""Pictures of the Fluent 3D emoji: one base render each, and its skin-tone variants.

The variants are natural near-duplicates; their ``family`` is the image_id of the base.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from pathlib import Path
from typing import Any

from pipeline.demo import pictures
from pipeline.demo.interests import emoji_interests
from pipeline.demo.records import Harvest, Picture
from pipeline.demo.sources import npm_files, npm_json

logger = logging.getLogger(__name__)

TONES = {
    "1f3fb": "light",
    "1f3fc": "medium-light",
    "1f3fd": "medium",
    "1f3fe": "medium-dark",
    "1f3ff": "dark",
}
_PRESENTATION = "fe0f"


def without_presentation(hexcode: str) -> str:
    """A file's code points, lower case, without the variation selector: the common key."""
    return "-".join(c for c in hexcode.lower().split("-") if c != _PRESENTATION)


def hexcode_of(emoji: str) -> str:
    """Key of an emoji string, e.g. ``1f469-200d-1f680``."""
    return without_presentation("-".join(f"{ord(c):04x}" for c in emoji))


def split_tones(key: str) -> tuple[str, tuple[str, ...]]:
    """Key without skin tones, and the tones' names in order; a bare tone swatch has none."""
    codes = key.split("-")
    if len(codes) == 1:
        return key, ()
    return (
        "-".join(c for c in codes if c not in TONES),
        tuple(TONES[c] for c in codes if c in TONES),
    )


def slug(label: str) -> str:
    """ASCII words of a label joined by hyphens: ``woman’s boot`` -> ``womans-boot``."""
    plain = unicodedata.normalize("NFKD", label.replace("’", "").replace("#", "number sign"))
    plain = plain.replace("*", "asterisk").encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _read_groups(emojibase: Path) -> tuple[dict[int, str], dict[int, tuple[str, str]]]:
    """Names of groups, and (key, name) of subgroups, by their order."""
    messages: Any = npm_json(emojibase, "en/messages.json")
    groups = {g["order"]: g["message"] for g in messages["groups"]}
    subgroups = {s["order"]: (s["key"], s["message"]) for s in messages["subgroups"]}
    return groups, subgroups


def _tags(keywords: list[str], label: str) -> tuple[str, ...]:
    """emojilib's keywords without emoticons and underscores; the label is the title already."""
    tags = (" ".join(k.replace("_", " ").split()) for k in keywords)
    return tuple(dict.fromkeys(t for t in tags if re.search(r"[^\W_]{2}", t) and t != label))


def harvest(fluent: Path, emojilib: Path, emojibase: Path) -> Harvest:
    """Read every render that emojilib and emojibase know.

    Args:
        fluent, emojilib, emojibase: paths of the three npm archives.

    Returns:
        Pictures in order of image_id, base and variants together, and the number left out by
        reason (a few renders stand twice, under a second spelling of their code points).
    """
    groups, subgroups = _read_groups(emojibase)
    entries: Any = npm_json(emojibase, "en/data.json")
    described = {without_presentation(e["hexcode"]): e for e in entries}
    listed: Any = npm_json(emojilib, "dist/emoji-en-US.json")
    keywords: dict[str, list[str]] = {hexcode_of(e): words for e, words in listed.items()}
    result = Harvest()
    seen: set[str] = set()
    for name, data in sorted(npm_files(fluent, "assets/")):
        hexcode = without_presentation(name.removesuffix(".webp"))
        key, tones = split_tones(hexcode)
        if key not in keywords or key not in described or hexcode in seen:
            result.left_out["second_spelling"] += 1
            continue
        seen.add(hexcode)
        entry = described[key]
        label: str = entry["label"]
        subgroup, subgroup_name = subgroups[entry["subgroup"]]
        stem = f"fluent/{slug(groups[entry['group']])}/{slug(label)}"
        tone_tags = tuple(f"{t} skin tone" for t in dict.fromkeys(tones))
        result.pictures.append(
            Picture(
                image_id=stem + "".join(f"+{t}" for t in tones) + ".webp",
                data=pictures.webp(pictures.shrink(pictures.on_white(pictures.open_image(data)))),
                title=label if not tones else f"{label}: {', '.join(tone_tags)}",
                description=f"{subgroup_name}, from {groups[entry['group']]}".capitalize(),
                tags=_tags(keywords[key], label) + tone_tags,
                source="Fluent Emoji 3D (npm @lobehub/fluent-emoji-3d 1.1.0)",
                licence="MIT",
                interests=emoji_interests(subgroup, label),
            )
        )
    result.pictures.sort(key=lambda p: p.image_id)
    logger.info("event=harvested source=fluent pictures=%d", len(result.pictures))
    return result

"""Hand-written mapping from the demo's folders and emoji groups to the 24 L1 interests.

A folder or group that says nothing clear about an interest is left out: its pictures get their
interests from the classifier, as most images of a real corpus do. Several interests are allowed.
"""

from __future__ import annotations

import re

FOLDER_INTERESTS: dict[str, tuple[str, ...]] = {
    "animals": ("animals",),
    "animals/fantasy": (),
    "buildings": ("architecture",),
    "buildings/furniture": ("home_decor",),
    "buttons": ("design",),
    "computer": ("electronics",),
    "computer/buttons": ("design",),
    "computer/diagrams": (),
    "computer/folders": ("design",),
    "computer/games": ("entertainment", "electronics"),
    "decorations": ("design", "art"),
    "education": ("education",),
    "electronics": ("electronics",),
    "food": ("food_and_drinks",),
    "office/telephone": ("electronics",),
    "plants": ("gardening",),
    "recreation/art": ("art",),
    "recreation/games": ("entertainment",),
    "recreation/holiday": ("event_planning",),
    "recreation/music": ("entertainment",),
    "recreation/party": ("event_planning",),
    "recreation/sports": ("sport",),
    "recreation/toys": ("entertainment", "parenting"),
    "science": ("education",),
    "science/medicine": ("health",),
    "tools": ("diy_and_crafts",),
    "tools/toys": ("entertainment", "parenting"),
    "tools/weapons": (),
    "transportation": ("vehicles", "travel"),
    "transportation/aiga-symbols": ("travel", "design"),
    "transportation/boating": ("sport", "vehicles"),
    "transportation/roadsigns": ("travel", "vehicles"),
    "transportation/vehicles": ("vehicles",),
}
"""Interests of a folder; a folder that is not named has those of its nearest named parent."""

SUBGROUP_INTERESTS: dict[str, tuple[str, ...]] = {
    "cat-face": ("animals",),
    "monkey-face": ("animals",),
    "body-parts": ("health",),
    "person-sport": ("sport",),
    "person-resting": ("health",),
    "animal-mammal": ("animals",),
    "animal-bird": ("animals",),
    "animal-amphibian": ("animals",),
    "animal-reptile": ("animals",),
    "animal-marine": ("animals",),
    "animal-bug": ("animals", "gardening"),
    "plant-flower": ("gardening",),
    "plant-other": ("gardening",),
    "food-fruit": ("food_and_drinks",),
    "food-vegetable": ("food_and_drinks", "gardening"),
    "food-prepared": ("food_and_drinks",),
    "food-asian": ("food_and_drinks",),
    "food-sweet": ("food_and_drinks",),
    "drink": ("food_and_drinks",),
    "dishware": ("food_and_drinks", "home_decor"),
    "place-map": ("travel", "education"),
    "place-geographic": ("travel",),
    "place-building": ("architecture", "travel"),
    "place-religious": ("architecture", "travel"),
    "place-other": ("travel",),
    "transport-ground": ("vehicles", "travel"),
    "transport-water": ("vehicles", "travel"),
    "transport-air": ("vehicles", "travel"),
    "hotel": ("travel",),
    "event": ("event_planning",),
    "award-medal": ("sport",),
    "sport": ("sport",),
    "game": ("entertainment",),
    "arts-crafts": ("art", "diy_and_crafts"),
    "music": ("entertainment",),
    "musical-instrument": ("entertainment",),
    "phone": ("electronics",),
    "computer": ("electronics",),
    "light-video": ("electronics", "entertainment"),
    "book-paper": ("education",),
    "money": ("finance",),
    "writing": ("education", "art"),
    "office": ("education",),
    "tool": ("diy_and_crafts",),
    "science": ("education",),
    "medical": ("health",),
    "household": ("home_decor",),
    "transport-sign": ("travel",),
    "av-symbol": ("design", "entertainment"),
    "arrow": ("design",),
    "math": ("education",),
    "currency": ("finance",),
    "geometric": ("design",),
    "country-flag": ("travel",),
    "subdivision-flag": ("travel",),
}
"""Interests of an emoji subgroup (emojibase's keys); groups that are not named have none."""

_WORD_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"speech (balloon|bubble)|anger bubble|thought balloon|speaking head", ("quotes",)),
    (r"(in|with) (tuxedo|veil)", ("wedding",)),
    (r"^ring$|^wedding$|^couple with heart\b|^kiss(:|$)|^love letter$", ("wedding",)),
    (r"^(bouquet|church)$|popping cork|clinking glasses", ("wedding", "event_planning")),
    (r"pregnant|feeding|^baby( bottle| symbol)?$|^child$|^family\b", ("parenting",)),
    (r"^(teddy bear|playground slide|yo-yo|kite)$", ("parenting", "entertainment")),
    (r"\b(backpack|socks|billed cap)\b", ("childrens_fashion",)),
    (r"nail polish|lipstick|getting (massage|haircut)|lotion|hair pick|razor|soap", ("beauty",)),
    (r"^(mirror|barber pole|kiss mark)$|steamy room", ("beauty",)),
    (r"\b(dress|kimono|sari|swimsuit|bikini|purse|handbag|clutch bag)\b", ("womens_fashion",)),
    (r"woman’s|high-heeled|flat shoe|ballet shoes|folding hand fan", ("womens_fashion",)),
    (r"\b(necktie|briefs|top hat)\b|^man’s shoe$", ("mens_fashion",)),
    (r"^(coat|jeans|scarf|gloves|glasses|sunglasses)$", ("mens_fashion", "womens_fashion")),
    (r"^(t-shirt|shorts|hiking boot)$", ("mens_fashion", "womens_fashion", "childrens_fashion")),
    (r"\b(running shoe|goggles)\b", ("sport",)),
    (r"\b(health worker|medical mask|thermometer|head-bandage|wheelchair)\b", ("health",)),
    (r"\b(student|teacher|scientist)\b|graduation cap|school", ("education",)),
    (r"\bartist\b", ("art",)),
    (r"\bsinger\b|dancing|dancer|bunny ears", ("entertainment",)),
    (r"\bfarmer\b", ("gardening",)),
    (r"\bcook\b", ("food_and_drinks",)),
    (r"\b(mechanic|factory worker)\b", ("diy_and_crafts",)),
    (r"\b(construction worker|building construction|brick)\b", ("architecture",)),
    (r"\btechnologist\b", ("electronics",)),
    (r"\b(pilot|astronaut)\b|world map", ("travel",)),
    (r"\boffice worker\b|chart (in|de)creasing|bar chart|^bank$|ATM", ("finance",)),
    (r"calendar|partying face|balloon$|wrapped gift", ("event_planning",)),
    (r"\b(running|walking|climbing)\b", ("sport",)),
    (r"couch and lamp|^(bed|chair|door|window|candle|potted plant)$", ("home_decor",)),
)
"""Interests that the words of an emoji's label add to those of its subgroup."""
_NOT_SUBGROUP = frozenset({"speech balloon", "thought balloon"})


def folder_interests(folder: str) -> tuple[str, ...]:
    """Interests of a clip art folder such as ``food/fruit``, ascending."""
    parts = folder.split("/")
    for length in range(len(parts), 0, -1):
        found = FOLDER_INTERESTS.get("/".join(parts[:length]))
        if found is not None:
            return tuple(sorted(found))
    return ()


def emoji_interests(subgroup: str, label: str) -> tuple[str, ...]:
    """Interests of an emoji from its subgroup and its label, ascending."""
    found = set(SUBGROUP_INTERESTS.get(subgroup, ()))
    for pattern, interests in _WORD_RULES:
        if re.search(pattern, label):
            found.update(interests)
    if label in _NOT_SUBGROUP:
        found.discard("event_planning")
    return tuple(sorted(found))

"""What one sample of a shard is: three members of a tar, `<key>.<suffix>`, `.txt` and `.json`.

The key has no dots, so that webdataset and its relatives group the members of a sample rightly.
"""

from schemas.contract import Column

SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Suffix of the image member by image format."""

TEXT_SUFFIX = "txt"
"""Member with the names of the labels, one a line."""

JSON_SUFFIX = "json"
"""Member with the fields below, in this order, as one line of UTF-8."""

KEY_DIGITS = 32
"""Hex digits of SHA-256 of the image_id at the start of a key; `-` and the copy's number follow."""

SAMPLE_FIELDS = (
    Column(name="copy_index", type="int", doc="number of the copy of the image, from 0", min=0),
    Column(name="image_id", type="string", doc="stable identifier of the image"),
    Column(name="label_ids", type="array<int>", doc="rows of the label map, ascending", min=0),
    Column(name="label_names", type="array<string>", doc="their names, in the same order"),
    Column(name="licence", type="string", doc="licence of the image", nullable=True),
    Column(name="sha256", type="string", doc="hex SHA-256 of the image member"),
    Column(name="source", type="string", doc="where the image came from", nullable=True),
)
"""Fields of the JSON member."""

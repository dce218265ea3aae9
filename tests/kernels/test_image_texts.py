"""The text of an image."""

import pytest

from pipeline.kernels.image_texts import image_text


@pytest.mark.parametrize(
    ("tags", "title", "description", "expected"),
    [
        (
            ["red  apple", "fruit"],
            "An\tapple",
            "On a table.",
            "red apple, fruit. An apple. On a table.",
        ),
        (None, "Apple", None, "Apple"),
        ([None, " ", "fruit"], None, "", "fruit"),
        ([], "  ", None, ""),
        (None, None, None, ""),
    ],
)
def test_text_by_hand(tags, title, description, expected):
    assert image_text(tags, title, description, 64) == expected


def test_words_are_cut_from_the_end():
    assert image_text(["a b", "c"], "d e", "f g", 4) == "a b, c. d"

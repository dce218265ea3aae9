"""The rules that make the demo corpus: titles, families, singulars, languages, pictures, split."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from pipeline.demo import emoji, interests, openclipart, pictures, sources, validation, vocabulary
from pipeline.demo.records import Picture, family_of


def metadata(title: str, creator: str = "") -> openclipart.Metadata:
    return openclipart.Metadata((), title, None, (), (creator,), False)


@pytest.mark.parametrize(
    ("stem", "title", "creator", "expected"),
    [
        ("hen_01", "Hen", "", "Hen"),
        ("contour_bat", "Clipart by Nicu Buculei - contour_chipmunk", "nicu buculei", "bat"),
        ("aiga_first_aid1", "AIGA_Symbol_Signs", "", "first aid"),
        ("ralf_ark_01", "ralf@example.org", "ralf ark", None),
        ("home12", "Homes Clipart", "", "home"),
    ],
)
def test_title_of_a_series_comes_from_the_file_name(stem, title, creator, expected):
    assert openclipart.title_of(stem, metadata(title, creator)) == expected


def test_skin_tones_lead_to_one_family():
    assert emoji.split_tones("1f44b-1f3fd") == ("1f44b", ("medium",))
    assert emoji.split_tones("1f3fd") == ("1f3fd", ())
    assert emoji.without_presentation("2764-FE0F") == "2764"
    assert emoji.hexcode_of("✍️") == "270d"
    assert family_of("fluent/people-body/waving-hand+dark.webp") == (
        "fluent/people-body/waving-hand.webp"
    )
    assert family_of("openclipart/a+b.png") == "openclipart/a+b.png"
    assert emoji.slug("woman’s boot") == "womans-boot"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("cats", "cat", True),
        ("women", "woman", True),
        ("berries", "berry", True),
        ("bushes", "bush", True),
        ("tv", "television", True),
        ("glasses", "glass", False),
        ("bus", "bu", False),
        ("hot dogs", "hot dog", True),
        ("dogs house", "dog house", False),
    ],
)
def test_base_form(one, other, same):
    forms = [vocabulary.base_form(vocabulary.words_of(t)) for t in (one, other)]
    assert (forms[0] == forms[1]) is same


def picture(image_id: str, title: str | None, *tags: str, source: str = "clip art") -> Picture:
    return Picture(image_id, image_id.encode(), title, None, tags, source, "MIT")


def test_dictionary_by_hand():
    corpus = [
        *(picture(f"a{i}", "Cat", "animal") for i in range(3)),
        *(picture(f"b{i}", "cats", "animal") for i in range(3)),
        picture("c", "cat"),
        *(picture(f"d{i}", "cavallo") for i in range(2)),
        picture("e", "rude"),
        picture("f", "rare"),
        *(picture(f"fluent/x+{i}.webp", "variant") for i in range(9)),
    ]

    def frequency(text: str, language: str) -> float:
        return {("cavallo", "it"): 5.0}.get((text, language), 4.0 if language == "en" else 1.0)

    rows = vocabulary.build_terms(corpus, ["rude"], frequency, "Fluent").to_pylist()
    assert [
        (r["text"], r["language"], rows[r["canonical_term_id"]]["text"], r["is_sensitive"])
        for r in rows
    ] == [
        ("animal", "en", "animal", False),
        ("cat", "en", "cat", False),
        ("cats", "en", "cat", False),
        ("rude", "en", "rude", True),
    ]


def test_a_foreign_term_needs_fewer_pictures():
    corpus = [picture(f"d{i}", "cavallo") for i in range(2)]
    rows = vocabulary.build_terms(
        corpus, [], lambda _, language: 5.0 if language == "it" else 1.0, "Fluent"
    ).to_pylist()
    assert [(r["text"], r["language"]) for r in rows] == [("cavallo", "it")]


def test_interests_of_folders_and_groups():
    assert interests.folder_interests("food/fruit") == ("food_and_drinks",)
    assert interests.folder_interests("animals/fantasy") == ()
    assert interests.folder_interests("containers") == ()
    assert "quotes" in interests.emoji_interests("emotion", "speech balloon")
    assert "event_planning" not in interests.emoji_interests("emotion", "speech balloon")
    assert interests.emoji_interests("family", "kiss: man, man") == ("wedding",)
    assert interests.emoji_interests("animal-bird", "baby chick") == ("animals",)


def test_trim_cuts_the_page_and_refuses_specks():
    page = np.full((400, 300, 3), 255, np.uint8)
    page[100:200, 50:90] = 0
    cut = pictures.trim(Image.fromarray(page))
    assert cut is not None
    assert cut.size == (46, 106)  # 40 x 100 and a margin of 3 on each side
    page[:] = 255
    assert pictures.trim(Image.fromarray(page)) is None
    page[10:20, 10:20] = 0
    assert pictures.trim(Image.fromarray(page)) is None


def test_transparency_becomes_white_and_nothing_grows():
    clear = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    white = pictures.on_white(clear)
    assert white.getpixel((3, 3)) == (255, 255, 255)
    assert pictures.shrink(white).size == (40, 20)
    assert pictures.shrink(white.resize((400, 200))).size == (128, 64)


def test_split_holds_out_and_leaves_opt_outs():
    noise = np.random.default_rng(0)
    data = [
        pictures.webp(Image.fromarray(noise.integers(0, 255, (120, 120, 3), np.uint8)))
        for _ in range(4)
    ]
    corpus = [
        Picture(f"openclipart/{i}.png", data[i % 4], None, None, (), "s", "l") for i in range(160)
    ]
    corpus += [
        Picture(f"fluent/f{i}{tone}.webp", data[i % 4], None, None, (), "s", "l")
        for i in range(41)
        for tone in ("", "+dark", "+light")
    ]
    never = frozenset(p.image_id for p in corpus[:110])
    split = validation.hold_out(corpus, never)
    held = [i for d, i, _ in split.rows if d != "demo_copies"]
    assert len(split.kept) == len(corpus) - len(held)
    assert not never & set(held)
    assert not {p.image_id for p in split.kept} & {i for _, i, _ in split.rows}
    again = validation.hold_out(corpus[::-1], never)
    assert again.rows == split.rows


def test_another_archive_is_refused(tmp_path):
    wrong = sources.Package("npm", "x", "1", "x.tgz", hashlib.sha256(b"x").hexdigest(), "MIT")
    (tmp_path / "x.tgz").write_bytes(b"y")
    with pytest.raises(ValueError, match=r"x\.tgz: sha256 .* expected"):
        sources.fetch(wrong, tmp_path)

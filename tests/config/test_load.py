"""Presets load; wrong names are refused with the nearest right one."""

import pytest

from pipeline.config.load import load_config, preset_names
from pipeline.config.run import RunConfig


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads(preset):
    assert isinstance(load_config(preset), RunConfig)


def test_override_reaches_the_field():
    config = load_config("tiny", ["select_visual_terms.boundary=0.7"])
    assert config.select_visual_terms.boundary == 0.7
    assert (
        load_config("tiny", ["cluster_terms.num_clusters=null"]).cluster_terms.num_clusters is None
    )
    given = load_config("tiny", ["inputs.images.path=a.parquet"]).inputs.images
    assert given is not None
    assert given.path == "a.parquet"


def test_root_replaces_the_preset():
    assert load_config("tiny", root="elsewhere").root == "elsewhere"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("score_concretenes.epochs=3", "Did you mean 'score_concreteness'"),
        ("score_concreteness.epoch=3", "Did you mean 'epochs'"),
        ("score_concreteness.epochs=0", "greater than or equal to 1"),
        ("score_concreteness.epochs", "expected section.field=value"),
        ("root.x=1", "is a value, not a section"),
    ],
)
def test_wrong_override_is_explained(override, message):
    with pytest.raises(ValueError, match=message):
        load_config("tiny", ["root=r", override] if "root" in override else [override])


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match="Did you mean 'tiny'"):
        load_config("tinny")


def test_file_extends_a_preset(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: tiny\nselect_visual_terms:\n  boundary: 0.71\n")
    config = load_config(str(path))
    assert config.select_visual_terms.boundary == 0.71
    assert config.runtime == load_config("tiny").runtime


def test_both_annotation_forms_are_refused():
    with pytest.raises(ValueError, match="not both"):
        load_config("tiny", ["inputs.annotations_long.path=a", "inputs.annotations_nested.path=b"])


def test_catalog_table_needs_a_snapshot():
    with pytest.raises(ValueError, match="needs a snapshot"):
        load_config("tiny", ["inputs.images.table=db.images"])


def test_fingerprint_follows_the_values():
    one, two = load_config("tiny"), load_config("tiny")
    assert one.fingerprint() == two.fingerprint()
    other = load_config("tiny", ["label_images.restrict_to_interests=false"])
    assert one.fingerprint() != other.fingerprint()

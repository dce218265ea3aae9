"""Recipes load, replace a preset's training section, and say what the papers say."""

import pytest

from pipeline.config.load import load_config, recipe_names


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("preset", ["paper", "demo"])
def test_every_recipe_loads_over_a_preset(preset, recipe):
    config, plain = (load_config(preset, [], None, r) for r in (recipe, None))
    assert config.train.run.workers == plain.train.run.workers
    assert config.train.model.name in recipe_models()
    assert config.root == plain.root


def recipe_models():
    bit = {f"resnetv2_{m}_bit" for m in ("50x1", "101x1", "50x3", "101x3", "152x2", "152x4")}
    return bit | {
        "vit_base_patch16_224",
        "vit_base_patch32_224",
        "resnext101_32x8d",
        "vit_so400m_patch14_siglip_224",
    }


def test_the_paper_preset_is_the_vit_b16_recipe():
    assert load_config("paper").train == load_config("paper", [], None, "vit_b16").train


def test_a_recipe_takes_the_whole_section_but_for_the_machine():
    demo = load_config("demo", ["train.run.keep=7"], None, "vit_b32").train
    assert (demo.model.depth, demo.data.global_batch) == (None, 8192)
    assert (demo.run.keep, demo.run.log_every) == (7, 20)


def test_a_preset_changes_the_recipe_it_names(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper\nrecipe: resnext101\ntrain: {optimizer: {lr: 0.06}}\n")
    train = load_config(str(mine)).train
    assert (train.optimizer.name, train.optimizer.lr, train.optimizer.trust) == ("lars", 0.06, 1e-3)


def test_a_recipe_of_ones_own(tmp_path):
    mine = tmp_path / "large.yaml"
    mine.write_text("extends: vit_b16\nmodel: {name: vit_large_patch16_224}\n")
    train = load_config("paper", ["train.seed=3"], None, str(mine)).train
    assert (train.model.name, train.seed) == ("vit_large_patch16_224", 3)
    assert train.schedule.warmup_steps == 10_000


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'vit_b16'"):
        load_config("tiny", [], None, "vit_b61")


def test_shapes_of_sovit():
    """SPEC G6."""
    shapes = {
        name: load_config("tiny", [], None, name).train.model
        for name in ("sovit_400m", "sovit_150m")
    }
    found = {n: (m.width, m.depth, m.mlp_width, m.heads) for n, m in shapes.items()}
    assert found == {"sovit_400m": (1152, 27, 4304, 16), "sovit_150m": (880, 18, 2320, 16)}

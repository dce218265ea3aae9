"""From a preset, a recipe and ``--set`` options to a checked configuration.

A preset holds any sections; a recipe is the section ``train`` of one published model. A preset may
name a recipe and change it; another recipe given beside the preset takes the whole place of that
section, except how a machine carries it out (``run``).
"""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Iterable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.run import RunConfig


def preset_names() -> list[str]:
    """Names of the packaged presets, sorted."""
    return _names("presets")


def recipe_names() -> list[str]:
    """Names of the packaged recipes, sorted."""
    return _names("recipes")


def _names(kind: str) -> list[str]:
    files = _folder(kind).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def _folder(kind: str) -> Traversable:
    # Below a package with a file of its own: a zip knows no folders that have none.
    return importlib.resources.files("pipeline.config") / kind


def load_config(
    preset: str = "tiny",
    overrides: Iterable[str] = (),
    root: str | None = None,
    recipe: str | None = None,
) -> RunConfig:
    """Load a preset, put the recipe in, apply overrides, check everything.

    Args:
        preset: name of a packaged preset, or path of a YAML file. A file may say
            ``extends: <preset>`` and then hold only what differs, and ``recipe: <recipe>``, on
            which its own ``train`` section is laid.
        overrides: ``section.field=value``; the value is read as YAML.
        root: replaces the preset's root.
        recipe: name of a packaged recipe, or path of a YAML file, in place of the preset's.

    Raises:
        ValueError: unknown preset, recipe, field or value; names the nearest valid one.
    """
    values = _with_recipe(_read(preset, "presets"), recipe)
    for override in overrides:
        _apply(values, override)
    if root is not None:
        values["root"] = root
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"preset {preset!r}: {_explain(error)}") from error


def with_overrides(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """A configuration with some values changed.

    Args:
        config: stays as it is.
        overrides: ``section.field=value``; the value is read as YAML.

    Raises:
        ValueError: unknown field or value; names the nearest valid one.
    """
    values = config.model_dump(mode="json")
    for override in overrides:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"overrides {list(overrides)}: {_explain(error)}") from error


def _with_recipe(values: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    named, own = values.pop("recipe", None), values.get("train") or {}
    if recipe is not None:
        named, own = recipe, {"run": own.get("run") or {}}
    if named is None:
        return values
    return {**values, "train": _merge(_read(named, "recipes"), own)}


def _read(name: str, kind: str) -> dict[str, Any]:
    """Values of a packaged file of ``presets`` or ``recipes``, or of a user's own."""
    names, one = _names(kind), kind.removesuffix("s")
    if name in names:
        text = (_folder(kind) / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise ValueError(
            f"{one} {name!r}: expected one of {names} or the path of a .yaml file."
            + _nearest(name, names)
        )
    values = yaml.safe_load(text) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{one} {name!r}: expected a mapping of sections.")
    base = values.pop("extends", None)
    return values if base is None else _merge(_read(base, kind), values)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        result[key] = _merge(old, value) if both and isinstance(old, dict) else value
    return result


def _apply(values: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    if not sign:
        raise ValueError(f"--set {override!r}: expected section.field=value.")
    *sections, name = path.strip().split(".")
    place = values
    for section in sections:
        if place.get(section) is None:
            place[section] = {}
        place = place[section]
        if not isinstance(place, dict):
            raise ValueError(f"--set {override!r}: {section!r} is a value, not a section.")
    place[name] = yaml.safe_load(text)


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        hint = ""
        if problem["type"] == "extra_forbidden":
            *parents, name = problem["loc"]
            hint = _nearest(str(name), _fields(RunConfig, parents))
        lines.append(f"{where}: {problem['msg']}, found {problem['input']!r}.{hint}")
    return " ".join(lines)


def _fields(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        kinds = (
            [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        )
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""

"""From a preset and ``--set`` options to a checked configuration."""

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
    files = _presets().iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def _presets() -> Traversable:
    # Below a package with a file of its own: a zip knows no folders that have none.
    return importlib.resources.files("pipeline.config") / "presets"


def load_config(
    preset: str = "tiny", overrides: Iterable[str] = (), root: str | None = None
) -> RunConfig:
    """Load a preset, apply overrides, check everything.

    Args:
        preset: name of a packaged preset, or path of a YAML file. A file may say
            ``extends: <preset>`` and then hold only what differs.
        overrides: ``section.field=value``; the value is read as YAML.
        root: replaces the preset's root.

    Raises:
        ValueError: unknown preset, field or value; names the nearest valid one.
    """
    values = _read(preset)
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


def _read(preset: str) -> dict[str, Any]:
    if preset in preset_names():
        text = (_presets() / f"{preset}.yaml").read_text(encoding="utf-8")
    elif preset.endswith((".yaml", ".yml")):
        text = Path(preset).read_text(encoding="utf-8")
    else:
        raise ValueError(
            f"preset {preset!r}: expected one of {preset_names()} or the path of a .yaml file."
            + _nearest(preset, preset_names())
        )
    values = yaml.safe_load(text) or {}
    if not isinstance(values, dict):
        raise ValueError(f"preset {preset!r}: expected a mapping of sections.")
    base = values.pop("extends", None)
    return values if base is None else _merge(_read(base), values)


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

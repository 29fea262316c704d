"""Fields of nested dataclasses, changed by nested or dotted names, with text read as a command line would."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal


def changed(spec: Any, changes: Mapping[str, Any], faults: list[str]) -> Any:
    """A copy of a dataclass with changed fields.

    Args:
        spec: whose fields are values or dataclasses in turn.
        changes: by nesting (`{"head": {"epochs": 2}}`) or by dots (`{"head.epochs": 2}`).
        faults: gets a line for every unknown name and every value of a wrong type; the copy then lacks them.
    """
    return _replace(spec, _nest(changes, faults), "", faults)


def _nest(changes: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Dotted names to nested mappings."""
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        *parents, leaf = str(name).split(".")
        level = nested
        for parent in parents:
            below = level.setdefault(parent, {})
            if not isinstance(below, dict):
                faults.append(f"{name}: {parent} is given a value and fields at once")
                break
            level = below
        else:
            if isinstance(value, Mapping) and leaf != "options":
                merged = _nest(value, faults)
                before = level.get(leaf)
                level[leaf] = {**before, **merged} if isinstance(before, dict) else merged
            else:
                level[leaf] = value
    return nested


def _replace(spec: Any, changes: Mapping[str, Any], prefix: str, faults: list[str]) -> Any:
    """A copy of one dataclass with nested changes."""
    hints = typing.get_type_hints(type(spec))
    known = {f.name for f in dataclasses.fields(spec)}
    values: dict[str, Any] = {}
    for name, value in changes.items():
        path = prefix + name
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            faults.append(f"{path}: no such field; {hint}")
            continue
        present = getattr(spec, name)
        if dataclasses.is_dataclass(present):
            if isinstance(value, type(present)):
                values[name] = value
            elif isinstance(value, Mapping):
                values[name] = _replace(present, value, path + ".", faults)
            else:
                faults.append(f"{path}: expected fields ({path}.NAME). Received: {value!r}")
            continue
        try:
            values[name] = _coerce(value, hints[name])
        except ValueError as error:
            faults.append(f"{path}: {error}. Received: {value!r}")
    return dataclasses.replace(spec, **values)


def _coerce(value: Any, hint: Any) -> Any:
    """The value as the field's type; text is read as a command line would."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "auto")):
            return None
        return _coerce(value, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), [str(a) for a in arguments], 1)
            raise ValueError(
                f"expected one of {', '.join(map(str, arguments))}" + (f" (did you mean {near[0]}?)" if near else "")
            )
        return value
    if hint is bool:
        words = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise ValueError("expected true or false")
    if hint in (int, float):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"expected {'a whole number' if hint is int else 'a number'}") from None
        if isinstance(value, bool) or (hint is int and not number.is_integer()):
            raise ValueError("expected a whole number")
        return hint(number)
    if hint is str:
        if isinstance(value, Path):
            return str(value)
        if not isinstance(value, str):
            raise ValueError("expected text")
        return value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError('expected JSON, such as {"name": 1}') from None
    if not isinstance(value, Mapping):
        raise ValueError("expected a mapping")
    return dict(value)

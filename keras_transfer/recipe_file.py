"""Recipe files: a Python module with `recipe = Recipe(...)`, loaded by path, with overrides from the command line."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_transfer.recipe import Recipe, RecipeError, override


def load_recipe(path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """The `recipe` of a Python module.

    Raises:
        ValueError: no such file, an error inside it, or no `recipe` in it.
        RecipeError: for overrides that do not fit.
    """
    path = Path(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path}: expected a Python file with `recipe = Recipe(...)`. Received: no such file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except RecipeError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: expected a recipe that can be imported. Received: {error!r}.") from error
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path}: expected `recipe = Recipe(...)` in the module. Received: {type(recipe).__name__}.")
    return override(recipe, overrides or {})


def parse_overrides(words: Sequence[str]) -> dict[str, str]:
    """`--head.epochs 2 --fine_tune.trainable=last:2` to dotted names and texts.

    Raises:
        ValueError: a word that is no option, or an option without a value.
    """
    changes: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"expected --field.sub value. Received: {word!r}")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
                raise ValueError(f"--{name}: expected a value")
            value = rest.pop(0)
        changes[name.replace("-", "_")] = value
    return changes

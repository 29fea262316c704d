"""Prepared: what is known before anything is trained: the recipe with every field decided, the splits, the labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_transfer import recipe as recipes
from keras_transfer.data import checks, forms, sources, splits
from keras_transfer.data.findings import Raw
from keras_transfer.data.records import Splits
from keras_transfer.labels import Labels
from keras_transfer.progress import Log
from keras_transfer.recipe import Recipe
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import Task

WARNED_FILES = 3
"""Files that a warning names before a training; `keras-transfer check` names more."""


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is trained."""

    recipe: Recipe
    task: Task
    splits: Splits
    labels: Labels


def recipe_of(
    given: Any, overrides: Mapping[str, Any], label_names: list[str] | None = None
) -> tuple[Recipe, Raw | None]:
    """The checked recipe of what `fit` was given, and the records where it was given datasets."""
    records = None
    if isinstance(given, Recipe):
        recipe = given
    elif isinstance(given, str | Path):
        recipe = recipes.override(Recipe(), {"data.source": str(given)})
    else:
        source, records = sources.from_datasets(given, label_names=label_names)
        recipe = recipes.override(Recipe(), {"data.source": source})
    recipe = recipes.override(recipe, overrides)
    recipes.check(recipe)
    if recipe.task:
        try:
            get_task(recipe.task)
        except ValueError as error:
            raise recipes.RecipeError([str(error)]) from None
    if not recipe.task and records is None:
        recipe = replace(recipe, task=forms.infer(recipe.data.source, recipe.data).task)
    elif not recipe.task and records is not None:
        first = next(part[0] for part in records.values() if part)
        recipe = replace(recipe, task="text_classification" if "text" in first.fields else "image_classification")
    if not recipe.name:
        recipe = replace(recipe, name=_name_of(recipe.data.source))
    return recipe, records


def prepare(recipe: Recipe, log: Log, given: Raw | None = None) -> Prepared:
    """Reads, checks and splits the data, learns the labels, and decides every open field of the recipe.

    Raises:
        DataError: what stops a training, by file.
    """
    task = get_task(recipe.task)
    log.say(f"reading {recipe.data.source}")
    raw, findings = (
        checks.check_source(recipe.data, recipe.task) if given is None else checks.check_raw(given, recipe.data)
    )
    for finding in findings:
        if finding.severity == "warn":
            log.warn(str(replace(finding, files=finding.files[:WARNED_FILES])))
    checks.refuse(findings)
    assert raw is not None
    parts = splits.split(raw, recipe.data)
    checks.refuse(checks.check(parts, recipe.data, recipe.task))
    labels = task.learn_labels(parts.train, recipe)
    recipe = task.resolve(recipe, len(parts.train))
    if not recipe.backbone.name:
        recipe = recipes.override(recipe, {"backbone.name": task.default_backbone})
    return Prepared(recipe, task, parts, labels)


def _name_of(source: str) -> str:
    """A run's name from its data: `sample:trees` -> trees, `photos/` -> photos."""
    stem = Path(source.split(":", 1)[-1] if re.match(r"(tfds|sample|python):", source) else Path(source).resolve()).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "run"

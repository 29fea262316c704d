"""Prepared: what is known before anything is trained: the recipe with every field decided, the splits, the labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_transfer import backbones, freezing, recipe_faults
from keras_transfer import recipe as recipes
from keras_transfer.data import checks, forms, sources, splits
from keras_transfer.data.findings import Raw
from keras_transfer.data.records import Splits
from keras_transfer.freeze_policy import FreezePolicy
from keras_transfer.labels import Labels
from keras_transfer.progress import Log
from keras_transfer.recipe import BackboneSpec, Recipe
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import Task
from keras_transfer.text import families as text_families
from keras_transfer.vision import families, pretrained

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
    recipe_faults.check(recipe)
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

    What names the backbone and what of it trains is checked before the data is read, which may take long.

    Raises:
        ValueError: a backbone, weights or `trainable` that there is not.
        DataError: what stops a training, by file.
    """
    task = get_task(recipe.task)
    _check_names(recipe, task)
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
    recipe = _decided(task.resolve(recipe, len(parts.train)))
    if not recipe.backbone.name:
        recipe = recipes.override(recipe, {"backbone.name": task.default_backbone})
    return Prepared(recipe, task, parts, labels)


def _decided(recipe: Recipe) -> Recipe:
    """The recipe with what its task left open: no weight decay, no label smoothing."""
    phases = {}
    for name in ("head", "fine_tune"):
        phase = getattr(recipe, name)
        phases[name] = replace(
            phase, weight_decay=phase.weight_decay or 0.0, label_smoothing=phase.label_smoothing or 0.0
        )
    return replace(recipe, **phases)


def _check_names(recipe: Recipe, task: Task) -> None:
    """Raises `ValueError` for a backbone, weights or parts of the backbone that there are not; reads no weights."""
    spec = recipe.backbone if recipe.backbone.name else replace(recipe.backbone, name=task.default_backbone)
    faults = [fault for fault in (_backbone_fault(spec, task), _weights_fault(spec)) if fault]
    trainable = recipe.fine_tune.trainable
    try:
        policy = FreezePolicy.parse("none" if trainable == "auto" else trainable)
        # Only with a name in it is a network made to look for it, which takes a second or two.
        if not faults and (policy.names or spec.features_at) and families.find(spec.name.removeprefix("sample:")):
            freezing.apply(backbones.load(replace(spec, weights="none")), policy, recipe.fine_tune.batchnorm)
    except ValueError as error:
        text = str(error)
        faults.append(f"fine_tune.{text}" if text.startswith("trainable") else text)
    if faults:
        raise ValueError("\n".join(faults))


def _backbone_fault(spec: BackboneSpec, task: Task) -> str:
    """What is wrong with the name of a backbone; "" where something of the task's kind goes by it."""
    name = spec.name.removeprefix("sample:")
    known = families.find(name) is not None or name in text_families.SAMPLES
    preset = not known and not name.startswith("run:") and pretrained.is_preset(name)
    try:
        text = name in text_families.SAMPLES or (preset and _is_text(name))
    except ValueError as error:  # a preset out of reach, or a folder that is none
        return str(error)
    if (known or preset) and text != (task.modality == "text"):
        readable = f" (of the families {', '.join(text_families.FAMILIES)})" if task.modality == "text" else ""
        return (
            f"backbone.name: expected a backbone of {task.modality}s for the task {task.name}, such as "
            f"{task.default_backbone}{readable}. Received: {spec.name!r}, which is none."
        )
    if name.startswith("run:"):
        path = Path(name.removeprefix("run:"))
        found = (path / "model.keras" if path.is_dir() else path).is_file()
    else:
        found = known or preset
    if found:
        return ""
    try:
        backbones.load(spec)
    except ValueError as error:  # nothing goes by that name; the error says what is near
        return str(error)
    return ""


def _is_text(preset: str) -> bool:
    """Whether a keras_hub preset is a backbone of texts."""
    from keras_transfer.text import pretrained as texts  # TF Text, which images do not need

    return texts.family_of(preset) is not None


def _weights_fault(spec: BackboneSpec) -> str:
    """What is wrong with a file of weights; "" where there is one, or none is named."""
    weights = spec.weights
    if weights in ("auto", "imagenet", "none") or weights.startswith("sample:") or Path(weights).is_file():
        return ""
    return (
        f"backbone.weights: expected auto, imagenet, none, sample:NAME or a file"
        f"{families.hint(weights, ('auto', 'imagenet', 'none'))}. Received: {weights!r}, and there is no such file."
    )


def _name_of(source: str) -> str:
    """A run's name from its data: `sample:trees` -> trees, `photos/` -> photos."""
    stem = Path(source.split(":", 1)[-1] if re.match(r"(tfds|sample|python):", source) else Path(source).resolve()).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "run"

"""Recipe: everything that one training needs, as frozen dataclasses that only store.

A recipe does no work. `check` reports every fault at once; `override` gives a changed copy from nested or dotted
names, so that a script, the command line and Python share one way to change a field.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

RECIPE_FORMAT = 1

Solver = Literal["auto", "gradient", "exact"]
BadFiles = Literal["fail", "skip"]
Resize = Literal["auto", "crop", "pad", "stretch"]
Cache = Literal["auto", "features", "boundary", "off"]
CachePrecision = Literal["float32", "float16"]
Strategy = Literal["auto", "one", "mirrored"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Schedule = Literal["auto", "constant", "cosine", "linear"]
ClassWeights = Literal["auto", "none", "balanced"]


class RecipeError(ValueError):
    """Lists every fault of a recipe at once."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        super().__init__("\n".join(["The recipe has faults:", *(f"  - {fault}" for fault in faults)]))


@dataclass(frozen=True)
class DataSpec:
    """Where the labelled examples come from and how they are fed."""

    source: str = ""
    """A folder, a CSV/TSV/JSONL file, `tfds:NAME` or `sample:NAME`."""
    batch_size: int = 32
    """Examples in a step, over all devices."""
    validation_share: float = 0.15
    """Share of the training examples split off for validation where the data has no such split."""
    test_share: float = 0.15
    """Share split off for the test where the data has no such split."""
    augment: str = "auto"
    """`none`, `light`, `medium`, `strong`, or operations: `flip,crop:0.2,rotate:10,color:0.2,randaugment,mixup:0.2`."""
    bad_files: BadFiles = "fail"
    """`fail` stops with the list of unreadable examples, `skip` leaves them out."""
    resize: Resize = "auto"
    """How an image meets the square that the backbone takes: `crop`, `pad`, `stretch`."""
    path_column: str = "path"
    text_column: str = "text"
    text_pair_column: str = "text_pair"
    label_column: str = "label"
    group_column: str = "group"
    group_pattern: str = ""
    """A regular expression with one group, applied to each path: examples with equal groups stay together."""
    label_separator: str = "auto"
    """Separates the labels of one example (multi-label). `auto`: `|` in a column, none in a folder name; "": none."""
    ignore_index: int = 255
    """Masks of class indices: the value of pixels that do not count; -1 is none."""
    limit: int = 0
    """At most so many training examples (the first by content hash); 0 is all."""


@dataclass(frozen=True)
class BackboneSpec:
    """The pretrained model."""

    name: str = ""
    """A registered name (`keras-transfer backbones`), `sample:NAME`, a keras_hub preset or its folder, `run:PATH`."""
    weights: str = "auto"
    """`auto` (the pretrained ones), `imagenet`, a file, `sample:NAME`, or `none` (random)."""
    image_size: int = 0
    """Side of the square input in pixels; 0 is the backbone's default."""
    sequence_length: int = 0
    """Tokens in an input; 0 is chosen from the data."""
    features_at: str = ""
    """Take the features after this block, and drop those above; "" is the last."""
    pooling: str = "auto"
    """Text: `auto` by family, `mean`, `first`, `last`."""


@dataclass(frozen=True)
class Phase:
    """One phase of training. Zero epochs leave it out; what is None or `auto` is chosen from task and data."""

    epochs: int | None = None
    learning_rate: float | None = None
    trainable: str = "none"
    """Backbone blocks that train: `none`, `last:N`, `from:NAME`, `all`, `layers:PATTERN,…`, `auto`."""
    solver: Solver = "auto"
    """Head phase only. `exact`: regularised regression on the frozen features; `gradient`: epochs of Adam."""
    schedule: Schedule = "auto"
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises from zero."""
    weight_decay: float | None = None
    """Decoupled, on kernels only; 0 is none, None is chosen by the task."""
    clip_norm: float = 1.0
    """Global norm of the gradient over all devices; 0 is no clipping."""
    layer_decay: float = 1.0
    """The learning rate of each block is this times that of the block above."""
    patience: int = 0
    """Epochs without a better validation score before the phase stops; 0 is never."""
    batchnorm: Literal["frozen", "train"] = "frozen"
    dropout: float = 0.0
    """Dropout rate before the last layer of the head."""
    label_smoothing: float | None = None
    """Share of each target spread over the classes; 0 is none, None is chosen by the task."""
    feature_noise: float = 0.0
    """Head phase only, by gradient descent on cached features: Gaussian noise anew each epoch, its standard deviation
    this times each feature's own."""


@dataclass(frozen=True)
class DeviceSpec:
    """Where the training runs."""

    strategy: Strategy = "auto"
    """`auto`: mirrored over all visible GPUs if there are several, else one device."""
    precision: Precision = "auto"
    """`auto`: mixed_bfloat16 on a GPU that has it, else float32."""
    xla: bool = False
    """Compile the training step by XLA: for long trainings on one GPU (3.5 to 7 times faster steps of MiniLM on an
    H100, after 40 s of compiling for each length of batch); slower on a CPU."""


@dataclass(frozen=True)
class ExportSpec:
    """Where the finished model is published."""

    directory: str = "saved_models"
    enabled: bool = True


@dataclass(frozen=True)
class Recipe:
    """Everything that one training needs."""

    name: str = ""
    task: str = ""
    """`keras-transfer tasks` lists them; "" is inferred from the form of the data."""
    seed: int = 0
    cache: Cache = "auto"
    cache_precision: CachePrecision = "float32"
    """How cached features and activations are kept: `float32` is exact; `float16` takes half the disk."""
    class_weights: ClassWeights = "auto"
    """`balanced` weighs each class by its rarity; `auto` does so where the largest is over 3 times the smallest."""
    runs_directory: str = "runs"
    data: DataSpec = field(default_factory=DataSpec)
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    head: Phase = field(default_factory=Phase)
    fine_tune: Phase = field(default_factory=lambda: Phase(trainable="auto"))
    devices: DeviceSpec = field(default_factory=DeviceSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only one task knows (`keras-transfer tasks` describes them)."""

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values, with a format number."""
        plain = dataclasses.asdict(self)
        plain["options"] = dict(self.options)
        return {"format": RECIPE_FORMAT, **plain}

    def to_json(self) -> str:
        """The recipe as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` described.

        Raises:
            RecipeError: for unknown fields or values of the wrong type, all at once.
        """
        plain = dict(plain)
        written = plain.pop("format", RECIPE_FORMAT)
        if written != RECIPE_FORMAT:
            raise RecipeError(
                [f"format: expected {RECIPE_FORMAT}. Received: {written!r}. Use the release that wrote it"]
            )
        return override(cls(), plain)


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A copy with changed fields, named by nesting (`{"head": {"epochs": 2}}`) or by dots (`{"head.epochs": 2}`).

    Raises:
        RecipeError: for unknown fields or values of the wrong type, all at once.
    """
    faults: list[str] = []
    changed = _replace(recipe, _nest(changes, faults), "", faults)
    if faults:
        raise RecipeError(faults)
    return changed


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` with every fault of the recipe that can be seen without its data or libraries."""
    faults = list(_faults(recipe))
    if faults:
        raise RecipeError(faults)


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


def _faults(recipe: Recipe) -> Iterator[str]:
    """Every fault that the fields alone show."""
    data, backbone = recipe.data, recipe.backbone
    if not data.source:
        yield "data.source: expected a folder, a file, tfds:NAME or sample:NAME. Received: nothing"
    if recipe.name and ("/" in recipe.name or recipe.name.startswith(".")):
        yield f"name: expected a plain name without slashes or a leading dot. Received: {recipe.name!r}"
    if data.batch_size < 1:
        yield f"data.batch_size: expected at least 1. Received: {data.batch_size}"
    for name in ("validation_share", "test_share"):
        share = getattr(data, name)
        if not 0 <= share < 1:
            yield f"data.{name}: expected a share from 0 to below 1. Received: {share}"
    if data.validation_share + data.test_share >= 1:
        yield (
            "data.validation_share + data.test_share: expected less than 1, so that training examples remain. "
            f"Received: {data.validation_share + data.test_share:g}"
        )
    if not -1 <= data.ignore_index <= 255:
        yield f"data.ignore_index: expected 0 to 255, or -1 for none. Received: {data.ignore_index}"
    if data.limit < 0:
        yield f"data.limit: expected 0 (all) or more. Received: {data.limit}"
    if backbone.image_size < 0 or 0 < backbone.image_size < 32:
        yield f"backbone.image_size: expected 0 (default) or at least 32 pixels. Received: {backbone.image_size}"
    if backbone.sequence_length < 0:
        yield f"backbone.sequence_length: expected 0 (from the data) or more. Received: {backbone.sequence_length}"
    for phase_name in ("head", "fine_tune"):
        yield from _phase_faults(phase_name, getattr(recipe, phase_name))
    if recipe.head.trainable != "none":
        yield (
            "head.trainable: expected none, since the backbone is frozen in the head phase; set fine_tune.trainable. "
            f"Received: {recipe.head.trainable!r}"
        )
    yield from _noise_faults(recipe)
    if recipe.head.epochs == 0 and recipe.fine_tune.epochs == 0:
        yield "head.epochs and fine_tune.epochs: expected at least one above 0, else nothing is trained. Received: 0, 0"


def _noise_faults(recipe: Recipe) -> Iterator[str]:
    """Where noise on cached features cannot apply."""
    head, noise = recipe.head, recipe.head.feature_noise
    if recipe.fine_tune.feature_noise:
        yield (
            "fine_tune.feature_noise: expected 0, since noise is added to the features of the head phase alone; set "
            f"head.feature_noise. Received: {recipe.fine_tune.feature_noise:g}"
        )
    if not 0 <= noise < float("inf"):
        yield f"head.feature_noise: expected 0 (none) or more, and finite. Received: {noise:g}"
    elif noise and head.solver == "exact":
        yield f"head.feature_noise: expected 0 with head.solver exact; use head.solver gradient. Received: {noise:g}"
    elif noise and recipe.cache == "off":
        yield f"head.feature_noise: expected 0 with cache off; use cache features. Received: {noise:g}"


def _phase_faults(name: str, phase: Phase) -> Iterator[str]:
    """The faults of one phase."""
    if phase.epochs is not None and phase.epochs < 0:
        yield f"{name}.epochs: expected 0 or more. Received: {phase.epochs}"
    if phase.learning_rate is not None and not 0 < phase.learning_rate < float("inf"):
        yield f"{name}.learning_rate: expected above 0 and finite. Received: {phase.learning_rate}"
    for field_name, top in (("dropout", 1.0), ("label_smoothing", 1.0), ("warmup_share", 1.0)):
        value = getattr(phase, field_name)
        if value is not None and not 0 <= value < top:
            yield f"{name}.{field_name}: expected from 0 to below {top:g}. Received: {value}"
    if not 0 < phase.layer_decay <= 1:
        yield f"{name}.layer_decay: expected above 0 to 1. Received: {phase.layer_decay}"
    for field_name in ("weight_decay", "clip_norm", "patience"):
        value = getattr(phase, field_name)
        if value is not None and not 0 <= value < float("inf"):
            yield f"{name}.{field_name}: expected 0 or more, and finite. Received: {value}"

"""Recipe: everything that one training needs, as frozen dataclasses that only store.

A recipe does no work. `override` gives a changed copy from nested or dotted names, so that a script, the command line
and Python share one way to change a field; `recipe_faults.check` reports every fault at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_transfer import named_fields

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
    keep: Literal["best", "last"] = "best"
    """Whose weights the phase ends with: of the epoch with the best validation score, or of the last one, where
    validation examples are too few to tell epochs apart (the rate has fallen to zero by then, unless constant)."""
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
    fast_math: bool = False
    """Compute frozen features and training steps in bfloat16 on a processor that multiplies matrices in it (AMX), where
    a step of MiniLM takes 0.56 of its time; weights, scores and the export stay float32. Elsewhere nothing
    changes. Convolutions seldom gain."""


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
    """`balanced` weighs each class by its rarity; `auto` does so where the largest is over 3 times the smallest (10
    times in masks)."""
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
    copy = named_fields.changed(recipe, changes, faults)
    if faults:
        raise RecipeError(faults)
    return copy

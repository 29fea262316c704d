"""Planning: what a training will do, and about how many minutes and megabytes it takes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import boundary_cache, freezing
from keras_transfer.backbones import Backbone
from keras_transfer.data.records import Splits
from keras_transfer.devices import Devices
from keras_transfer.feature_cache import Encode
from keras_transfer.feature_store import Store
from keras_transfer.progress import Log
from keras_transfer.recipe import Recipe
from keras_transfer.samples import cache_folder
from keras_transfer.tasks.base import Examples
from keras_transfer.text import packing

PROBE_BATCH = 8
"""Examples in the batch that is measured."""
FIXED_SECONDS = 25.0  # tracing, export, and the fresh process that verifies it
TEXTS_TO_MEASURE = 1_000
TEXT_FIELDS = ("text", "text_pair", "question", "context")


@dataclass(frozen=True)
class Plan:
    """What a training will do and cost."""

    lines: tuple[str, ...]
    minutes: float
    cache_megabytes: float
    """Features, activations at the frozen boundary and decoded images, in the cache folder; those that may be kept."""
    run_megabytes: float
    """Model, checkpoints and export."""

    def to_json(self) -> dict[str, Any]:
        """What `fit --dry-run --json` prints."""
        return {
            "plan": list(self.lines),
            "minutes": round(self.minutes, 1),
            "megabytes": round(self.cache_megabytes + self.run_megabytes),
        }


def estimate(
    recipe: Recipe,
    splits: Splits,
    encode: Encode,
    model: keras.Model,
    backbone: Backbone | None = None,
    examples: Mapping[str, Examples] | None = None,
) -> Plan:
    """Measures one small batch, and reckons the rest from it; good to a factor of about two.

    Args:
        recipe: with every field decided.
        splits: the records.
        encode: from raw inputs to features; is traced here, which a pass of the head phase then need not do.
        model: the joined model.
        backbone: the encoder's; tells how long the texts are, and what is cached at the boundary.
        examples: by split, where a record gives several (tiles of a photo, windows of a text).
    """
    records = {name: len(part) for name, part in splits.named()}
    count = records | {name: len(part) for name, part in (examples or {}).items()}
    frozen = count["train"] + count["validation"]
    scored = sum(count.values()) - count["train"]
    tokens = _mean_tokens(recipe, splits, backbone)
    forward = _seconds_forward(encode, _padded(recipe, tokens))
    seconds = FIXED_SECONDS + forward * scored
    lines = [
        f"{name}: {number:,} examples" + (f" in {count[name]:,} inputs" if count[name] != number else "")
        for name, number in records.items()
    ]
    head, tune = recipe.head, recipe.fine_tune
    cached, live = 0.0, False
    augmented = recipe.data.augment not in ("none", "auto")
    if head.epochs:
        features = sum(_values(tensor, tokens) for tensor in encode.encoder.outputs)
        if head.solver == "gradient" and (recipe.cache == "off" or (augmented and recipe.cache == "auto")):
            seconds += forward * (count["train"] * head.epochs + count["validation"] * head.epochs)
            live = head.epochs > 1
        else:
            seconds += forward * frozen
            cached += _item_bytes(recipe) * features * frozen
        lines.append(f"head: frozen {recipe.backbone.name}, solver {head.solver}")
    if tune.epochs:
        share, boundary = _trained_share(tune.trainable, tune.batchnorm, backbone), 0.0
        if recipe.cache in ("auto", "boundary") and not (augmented and recipe.cache == "auto"):
            boundary = _item_bytes(recipe) * _boundary_values(backbone, recipe, tokens) * frozen
        if 0 < boundary <= Store().budget():
            seconds += forward * (frozen + tune.epochs * (count["train"] * 3 * share + count["validation"] * share))
            cached += boundary
        else:
            seconds += forward * tune.epochs * (count["train"] * (1 + 2 * share) + count["validation"])
            live = live or tune.epochs > 1
        lines.append(f"fine_tune: {tune.trainable}, {tune.epochs} epochs at {tune.learning_rate:g}")
    decoded = 4.0 * 3 * recipe.backbone.image_size**2 * frozen
    decodes = not tokens and not (examples and examples["train"].decoded)
    if live and decodes and recipe.cache != "off" and decoded <= Store().budget():
        cached += decoded
    copies = 3 + (4 if tune.epochs else 0)  # model, export with its check; checkpoints hold weights, best, two moments
    run_bytes = 4.0 * model.count_params() * copies
    return Plan(tuple(lines), seconds / 60, cached / 1e6, run_bytes / 1e6)


def say(plan: Plan, placed: Devices, log: Log) -> None:
    """Says the plan.

    Raises:
        OSError: not enough space on disk.
    """
    for line in plan.lines:
        log.say(f"  {line}")
    log.say(
        f"  on {placed}; about {max(plan.minutes, 0.5):.1f} minutes, {plan.cache_megabytes:,.0f} MB of cache, "
        f"{plan.run_megabytes:,.0f} MB for the run and its export"
    )
    for folder, megabytes in ((Path.cwd(), plan.run_megabytes), (cache_folder(), plan.cache_megabytes)):
        require_space(folder, megabytes)


def require_space(folder: Path, megabytes: float) -> None:
    """Raises `OSError` where a folder's disk has less space than that."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e6
    if megabytes > free:
        raise OSError(
            f"{folder}: expected {megabytes:,.0f} MB of free space. Received: {free:,.0f} MB. Free some, or choose "
            "another disk (KERAS_TRANSFER_CACHE, runs_directory, export.directory)."
        )


def _seconds_forward(encode: Encode, length: int) -> float:
    """Of one example through the encoder."""

    def zeros(tensor: Any) -> tf.Tensor:
        return tf.zeros([PROBE_BATCH, *(side or length for side in tensor.shape[1:])], tensor.dtype)

    function, inputs = encode(fold=False), tf.nest.map_structure(zeros, encode.encoder.input)
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        function(inputs)
        seconds.append(time.monotonic() - started)
    # The first call also sets up.
    return min(seconds[1:]) / PROBE_BATCH


def _mean_tokens(recipe: Recipe, splits: Splits, backbone: Backbone | None) -> float:
    """Tokens of a training example, shortened as the recipe says; 0 for images."""
    longest = recipe.backbone.sequence_length
    if backbone is None or backbone.tokenizer is None or not splits.train:
        return float(longest)
    step = -(-len(splits.train) // TEXTS_TO_MEASURE)
    names = [name for name in TEXT_FIELDS if any(name in record.fields for record in splits.train[:1])]
    texts = [tuple(str(record.fields.get(name, "")) for name in names) for record in splits.train[::step]]
    lengths = packing.pack(backbone.tokenizer, texts, 1 << 30).lengths
    # A context that is longer makes several examples; any other text is cut.
    return float(np.mean(lengths if "context" in names or not longest else np.minimum(lengths, longest)))


def _padded(recipe: Recipe, tokens: float) -> int:
    """The length to which a batch of such texts is padded."""
    longest = recipe.backbone.sequence_length or 64
    return next((size for size in packing.buckets(longest) if size >= tokens), longest)


def _values(tensor: Any, tokens: float) -> float:
    """Numbers in one example's tensor; an open axis is that of the tokens."""
    return float(np.prod([side or max(tokens, 1.0) for side in tensor.shape[1:]]))


def _boundary_values(backbone: Backbone | None, recipe: Recipe, tokens: float) -> float:
    """Numbers in one example's activations at the boundary of fine-tuning; 0 where there is none."""
    tensor = None if backbone is None else boundary_cache.activations(backbone, recipe.fine_tune)
    return 0.0 if tensor is None else _values(tensor, tokens)


def _item_bytes(recipe: Recipe) -> float:
    return float(np.dtype(recipe.cache_precision).itemsize)


def _trained_share(trainable: str, batchnorm: Any, backbone: Backbone | None) -> float:
    """The share of the network that the backward pass crosses, roughly: of its blocks."""
    if trainable == "none":
        return 0.0
    below = None if backbone is None else freezing.boundary(backbone, trainable, batchnorm)
    if backbone is None or below is None:
        return 1.0
    names = [block.name for block in backbone.blocks]
    return 1 - (names.index(below) + 1) / len(names)

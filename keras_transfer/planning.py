"""Planning: what a training will do, and about how many minutes and megabytes it takes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.records import Splits
from keras_transfer.devices import Devices
from keras_transfer.freezing import FreezePolicy
from keras_transfer.progress import Log
from keras_transfer.recipe import Recipe
from keras_transfer.samples import cache_folder

PROBE_BATCH = 8
EAGER_SLOWDOWN = 2.5  # an eager call against the traced one, measured on CPUs
FIXED_SECONDS = 25.0  # tracing, export, and the fresh process that verifies it


@dataclass(frozen=True)
class Plan:
    """What a training will do and cost."""

    lines: tuple[str, ...]
    minutes: float
    cache_megabytes: float
    """Features, in the cache folder."""
    run_megabytes: float
    """Model, checkpoints and export."""

    def to_json(self) -> dict[str, Any]:
        """What `fit --dry-run --json` prints."""
        return {
            "plan": list(self.lines),
            "minutes": round(self.minutes, 1),
            "megabytes": round(self.cache_megabytes + self.run_megabytes),
        }


def estimate(recipe: Recipe, splits: Splits, encoder: keras.Model, model: keras.Model) -> Plan:
    """Measures one small batch, and reckons the rest from it; good to a factor of about two."""
    count = {name: len(part) for name, part in splits.named()}
    frozen = count["train"] + count["validation"]
    scored = sum(count.values()) - count["train"]
    forward = _seconds_forward(encoder, recipe)
    seconds = FIXED_SECONDS + forward * scored
    lines = [f"{name}: {number:,} examples" for name, number in count.items()]
    head, tune = recipe.head, recipe.fine_tune
    if head.epochs:
        seconds += forward * frozen
        lines.append(f"head: frozen {recipe.backbone.name}, solver {head.solver}")
    if tune.epochs:
        work = 1 + 2 * _trained_share(tune.trainable)
        seconds += forward * tune.epochs * (count["train"] * work + count["validation"])
        lines.append(f"fine_tune: {tune.trainable}, {tune.epochs} epochs at {tune.learning_rate:g}")
    features = sum(int(np.prod([d or 1 for d in tensor.shape[1:]])) for tensor in encoder.outputs)
    copies = 3 + (4 if tune.epochs else 0)  # model, export with its check; checkpoints hold weights, best, two moments
    run_bytes = 4.0 * model.count_params() * copies
    return Plan(tuple(lines), seconds / 60, 4e-6 * features * frozen * bool(head.epochs), run_bytes / 1e6)


def say(plan: Plan, devices: Devices, log: Log) -> None:
    """Says the plan.

    Raises:
        OSError: not enough space on disk.
    """
    for line in plan.lines:
        log.say(f"  {line}")
    log.say(
        f"  on {devices}; about {max(plan.minutes, 0.5):.1f} minutes, {plan.cache_megabytes:,.0f} MB of cache, "
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


def _seconds_forward(encoder: keras.Model, recipe: Recipe) -> float:
    """Of one example through the encoder, as a traced function would take."""

    def zeros(tensor: Any) -> tf.Tensor:
        shape = [PROBE_BATCH, *(side or recipe.backbone.sequence_length or 64 for side in tensor.shape[1:])]
        return tf.zeros(shape, tensor.dtype)

    inputs = tf.nest.map_structure(zeros, encoder.input)
    return _timed(lambda: encoder(inputs, training=False)) / PROBE_BATCH / EAGER_SLOWDOWN


def _timed(work: Callable[[], Any]) -> float:
    """Seconds of the second call: the first one also sets up."""
    work()
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _trained_share(trainable: str) -> float:
    """The share of the network that the backward pass crosses, roughly."""
    policy = FreezePolicy.parse(trainable)
    last = getattr(policy, "last", None) or 0
    return min(1.0, last / 7) if trainable.startswith("last:") else 0.0 if trainable == "none" else 1.0

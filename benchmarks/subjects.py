"""Subjects: real data with a real backbone, for us and for the plain way on the same weights and examples."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import freezing, prepared, transfer
from keras_transfer.data.pipeline import evaluation_batches
from keras_transfer.joined import Joined
from keras_transfer.progress import Log
from keras_transfer.recipe import Recipe, override
from keras_transfer.tasks.base import Examples

BATCH = 32
AS_PLAIN: dict[str, Any] = {"schedule": "constant", "warmup_share": 0.0, "clip_norm": 0.0}
"""Of a phase: the same steps as plain Adam's, so that both ways learn the same and only their time differs."""
SILENT = Log(quiet=True)


@dataclass
class Subject:
    """The examples, and both networks on the same weights."""

    recipe: Recipe
    found: prepared.Prepared
    examples: dict[str, Examples]
    joined: Joined
    start: list[np.ndarray]
    """The weights of the joined model before any training."""

    @property
    def loss(self) -> Any:
        """Of each example."""
        return self.found.task.loss(self.found.labels, self.recipe, None)

    @property
    def validation(self) -> tuple[Examples, list[Any]]:
        """The examples, and what their predictions are compared with."""
        references = self.found.task.references(self.found.splits.validation, self.found.labels)
        return self.examples["validation"], references

    def counts(self) -> str:
        """For a note."""
        return ", ".join(f"{len(part):,} {name}" for name, part in self.examples.items() if "test" not in name)

    def reset(self, seed: int) -> None:
        """The weights from before any training, but for the head, which is drawn anew; nothing is unfrozen."""
        keras.utils.set_random_seed(seed)
        self.joined.model.set_weights(self.start)
        for layer in self.joined.head.layers:
            for variable in layer.trainable_variables:
                if "kernel" in variable.path:
                    variable.assign(keras.initializers.GlorotUniform(seed)(variable.shape))
        freezing.apply(self.joined.backbone, "none")


def subject(fields: Mapping[str, Any]) -> Subject:
    """Data, backbone and a freshly joined model.

    Args:
        fields: of the recipe, by dotted name.
    """
    recipe = override(Recipe(), {"data.batch_size": BATCH, "class_weights": "none", "name": "benchmark", **fields})
    found = prepared.prepare(recipe, SILENT)
    keras.utils.set_random_seed(recipe.seed)
    backbone = transfer.load_backbone(found, SILENT)
    found = replace(found, recipe=transfer._with_size(found, backbone, SILENT))
    joined = transfer.join(found.task, backbone, found.labels, found.recipe)
    examples = {
        name: found.task.examples(part, found.labels, backbone, found.recipe, training=name == "train")
        for name, part in found.splits.named()
        if part
    }
    return Subject(found.recipe, found, examples, joined, joined.model.get_weights())


def digits(quick: bool, **fields: Any) -> Subject:
    """Handwritten digits at 96 px, EfficientNet-Lite0: 3,800 to train on and 200 to choose by."""
    small = {"data.limit": 300, "data.validation_share": 0.05} if quick else {"data.validation_share": 0.05}
    chosen = {"data.source": "sample:digits", "task": "image_classification", "data.augment": "none", **small}
    return subject({**chosen, "backbone.name": "efficientnet_lite0", "backbone.image_size": 96, **fields})


def trees(quick: bool, **fields: Any) -> Subject:
    """Crops of aerial photos at 96 px, EfficientNet-Lite0."""
    small = {"data.limit": 300} if quick else {}
    chosen = {"data.source": "sample:trees", "task": "image_classification", **small}
    return subject({**chosen, "backbone.name": "efficientnet_lite0", "backbone.image_size": 96, **fields})


def reviews(quick: bool, **fields: Any) -> Subject:
    """Movie reviews, MiniLM."""
    small = {"data.limit": 300} if quick else {}
    chosen = {"data.source": "sample:movie_reviews", "task": "text_classification", "backbone.name": "minilm"}
    # No smoothing: the plain way has none, and losses are then the same.
    return subject({**chosen, **small, "fine_tune.label_smoothing": 1e-9, **fields})


def in_memory(examples: Examples) -> Examples:
    """Images decoded into memory beforehand: the plain way is not charged for that."""
    pixels, _ = arrays(examples)
    table = tf.constant(pixels)
    assert examples.targets is not None
    labels = tf.constant(examples.targets["label"])

    def load(index: tf.Tensor) -> Any:
        return {"pixels": tf.gather(table, index)}, {"label": tf.gather(labels, index)}

    return replace(examples, load=load)


def arrays(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """All pixels and labels, in memory."""
    pixels = None
    for batch in evaluation_batches(examples, min(64, len(examples))).dataset:
        real = batch["real"].numpy() > 0
        values = batch["inputs"]["pixels"].numpy()
        pixels = np.empty((len(examples), *values.shape[1:]), "float32") if pixels is None else pixels
        pixels[batch["index"].numpy()[real]] = values[real]
    assert pixels is not None and examples.targets is not None
    return pixels, np.asarray(examples.targets["label"])


@contextlib.contextmanager
def empty_cache() -> Iterator[Path]:
    """Features go to a folder of their own, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("keras_transfer.feature_store.cache_folder") as where:
        where.return_value = Path(folder)
        yield Path(folder)

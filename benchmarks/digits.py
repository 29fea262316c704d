"""Digits: 5,000 handwritten digits and EfficientNet-Lite0 at 96 px, for us and in the way of the Keras guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import prepared, transfer
from keras_transfer.data.pipeline import evaluation_batches
from keras_transfer.progress import Log
from keras_transfer.recipe import Recipe, override
from keras_transfer.tasks.base import Examples

SIZE, BATCH = 96, 32


@dataclass
class Digits:
    """The examples, and both networks on the same weights."""

    recipe: Recipe
    found: prepared.Prepared
    examples: dict[str, Examples]
    joined: transfer.Joined

    @property
    def loss(self) -> Any:
        """Of each example."""
        return self.found.task.loss(self.found.labels, self.recipe, None)

    @property
    def validation(self) -> tuple[Examples, list[Any]]:
        """The examples, and what their predictions are compared with."""
        references = self.found.task.references(self.found.splits.validation, self.found.labels)
        return self.examples["validation"], references


def digits(limit: int = 0, **fields: Any) -> Digits:
    """The data, and a freshly joined model.

    Args:
        limit: training examples; 0 is all.
        **fields: of the recipe, dots written as two underscores.
    """
    log = Log(quiet=True)
    recipe = override(
        Recipe(),
        {
            "data.source": "sample:digits",
            "data.augment": "none",
            "data.limit": limit,
            "data.batch_size": BATCH,
            "task": "image_classification",
            "name": "digits",
            "backbone.name": "efficientnet_lite0",
            "backbone.image_size": SIZE,
            "class_weights": "none",
            **{name.replace("__", "."): value for name, value in fields.items()},
        },
    )
    found = prepared.prepare(recipe, log)
    keras.utils.set_random_seed(recipe.seed)
    backbone = transfer.load_backbone(found, log)
    joined = transfer.join(found.task, backbone, found.labels, found.recipe)
    examples = {
        name: found.task.examples(part, found.labels, backbone, found.recipe, training=name == "train")
        for name, part in found.splits.named()
        if part
    }
    return Digits(found.recipe, found, examples, joined)


def arrays(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """All pixels and labels in memory: the plain way is not charged for decoding."""
    pixels = np.empty((len(examples), SIZE, SIZE, 3), "float32")
    for batch in evaluation_batches(examples, min(64, len(examples))).dataset:
        real = batch["real"].numpy() > 0
        pixels[batch["index"].numpy()[real]] = batch["inputs"]["pixels"].numpy()[real]
    assert examples.targets is not None
    return pixels, np.asarray(examples.targets["label"])


def plain_keras(data: Digits, dropout: float = 0.0) -> tuple[keras.Model, keras.Model]:
    """(model, its base) as the Keras transfer-learning guide writes them; the base is frozen.

    Source: https://keras.io/guides/transfer_learning.
    """
    base = keras.models.clone_model(data.joined.backbone.model)
    base.set_weights(data.joined.backbone.model.get_weights())
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    x = data.joined.backbone.preprocess(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    model = keras.Model(inputs, keras.layers.Dense(len(data.found.labels))(x))
    return model, base


def batches(pixels: np.ndarray, labels: np.ndarray, shuffle: bool) -> tf.data.Dataset:
    """Batches of decoded images from memory."""
    with tf.device("CPU"):
        dataset = tf.data.Dataset.from_tensor_slices((pixels, labels))
    dataset = dataset.shuffle(len(labels)) if shuffle else dataset
    return dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def compiled(model: keras.Model, rate: float) -> keras.Model:
    """With the guide's optimizer and loss."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model

"""Plain Keras: the two phases as the Keras transfer-learning guide writes them, on a subject's weights and examples.

The backbone is frozen inside `fit`; for the second phase some of it is unfrozen, BatchNormalization frozen by hand, and
the model compiled again. Source: https://keras.io/guides/transfer_learning.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf
from subjects import Subject

from keras_transfer.data.pipeline import Batches, evaluation_batches, training_batches, unwrap
from keras_transfer.tasks.base import Examples


def model_of(subject: Subject, dropout: float = 0.0) -> tuple[keras.Model, keras.Model]:
    """(model, its base), the base frozen; the head starts from the subject's."""
    backbone = subject.joined.backbone
    base = keras.models.clone_model(backbone.model)
    base.set_weights(backbone.model.get_weights())
    base.trainable = False
    head = keras.layers.Dense(len(subject.found.labels))
    if backbone.modality == "image":
        size = backbone.image_size
        inputs = keras.Input((size, size, 3), name="pixels")
        x = keras.layers.GlobalAveragePooling2D()(base(backbone.preprocess(inputs), training=False))
    else:
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in subject.joined.encoder.input}
        sequence = base({name: inputs[name] for name in base.input}, training=False)
        x = keras.layers.GlobalAveragePooling1D()(sequence, mask=inputs["padding_mask"])
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    model = keras.Model(inputs, head(x))
    head.set_weights(subject.joined.head.get_layer("logits").get_weights())
    return model, base


def compiled(model: keras.Model, rate: float) -> keras.Model:
    """With the guide's optimizer and loss."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, weighted_metrics=["accuracy"])
    return model


def unfreeze(base: keras.Model, names: Collection[str] | None = None) -> None:
    """All layers, or those of some names; BatchNormalization stays frozen, by hand."""
    base.trainable = True
    for layer in base.layers:
        normalization = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not normalization and (names is None or layer.name in names)


def training(examples: Examples, batch_size: int, seed: int) -> dict[str, Any]:
    """What `fit` takes: shuffled batches, texts by length, and the steps of an epoch."""
    batches = training_batches(examples, batch_size, seed)
    return {"x": _triples(batches), "steps_per_epoch": batches.steps, "shuffle": False}


def held_out(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """What `evaluate`, `predict` and `validation_data` take."""
    batches = evaluation_batches(examples, min(batch_size, len(examples)))
    # Keras warns of data that end where it does not know how many there are.
    return _triples(batches).apply(tf.data.experimental.assert_cardinality(batches.steps))


def accuracy(model: keras.Model, dataset: tf.data.Dataset) -> float:
    """The share that is right."""
    return float(model.evaluate(dataset, verbose=0, return_dict=True)["accuracy"])


def _triples(batches: Batches) -> tf.data.Dataset:
    """(inputs, label, weight): padding in the last batch weighs nothing."""
    return batches.dataset.map(lambda batch: (unwrap(batch["inputs"]), batch["targets"]["label"], batch["real"]))

"""Own model: one phase of training on a caller's own Keras model and datasets, in an existing project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_transfer import freezing
from keras_transfer.data.pipeline import PREFETCHED, Batches, untuned
from keras_transfer.recipe import Phase
from keras_transfer.training_loop import History, Loss, Scores, train_phase


def run_phase(
    model: keras.Model,
    train: tf.data.Dataset,
    validation: tf.data.Dataset | None,
    phase: Phase,
    *,
    loss: Any = None,
    metrics: Any = None,
) -> History:
    """One phase on a caller's own model and batched datasets; under the strategy whose scope is open.

    Args:
        model: any `keras.Model` of one output. What trains is what `freeze` and `unfreeze` left on, unless
            `phase.trainable` says something other than `none`.
        train: batches (inputs, targets) or (inputs, targets, weights).
        validation: the same; its first metric (higher is better; without metrics, the lower loss) chooses the epoch
            whose weights stay, the state before the phase among them. None keeps the last.
        phase: for example `Phase(epochs=3, learning_rate=1e-5)`. With `layer_decay`, blocks are those that `freeze`
            sees; the head has the full rate.
        loss: a Keras loss or its name; default: the one that the model was compiled with.
        metrics: Keras metrics or their names; `accuracy` is the one that fits the targets, as in `compile`.

    Returns:
        What happened, epoch by epoch; the model holds the weights of the best one.

    Raises:
        ValueError: no loss, no epochs, no learning rate, nothing that trains, or a dataset without or with endless
            batches.
    """
    if not phase.epochs or phase.learning_rate is None:
        raise ValueError(
            "phase: expected epochs of at least 1 and a learning rate, such as Phase(epochs=3, learning_rate=1e-5). "
            f"Received: epochs={phase.epochs}, learning_rate={phase.learning_rate}."
        )
    if phase.trainable != "none":
        freezing.apply(model, phase.trainable, batchnorm=phase.batchnorm)
    if not model.trainable_variables:
        raise ValueError(
            "model: expected weights that train. Received: none. Call keras_transfer.unfreeze(model, 'last:1') before, "
            "or say phase.trainable."
        )
    loss = _loss_of(model, loss)
    each_loss = _each(loss)
    strategy = tf.distribute.get_strategy()
    batches = _batches(train, strategy, "train")
    scorers = [_metric(metric, model, train, loss) for metric in metrics or ()]
    validate = None
    if validation is not None:
        validate = _validator(model, _batches(validation, strategy, "validation"), each_loss, scorers)
    primary = scorers[0].name if scorers else ""
    before = freezing.snapshot(model)
    paces = freezing.paces(model, model, phase.layer_decay)
    history = train_phase(model, batches, validate, phase, each_loss, primary=primary, strategy=strategy, paces=paces)
    freezing.assert_only_changed(before, freezing.snapshot(model), history.trained)
    return history


def _loss_of(model: keras.Model, loss: Any) -> Any:
    """The Keras loss to train with: an object or a function."""
    loss = loss if loss is not None else getattr(model, "loss", None)
    if loss is None:
        raise ValueError(
            "loss: expected a Keras loss, such as keras.losses.SparseCategoricalCrossentropy(from_logits=True), or a "
            "compiled model. Received: None."
        )
    return keras.losses.get(loss)


def _each(loss: Any) -> Loss:
    """A Keras loss as one number an example."""
    # `call` of an object is before the reduction; a function has none.
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def each(targets: Any, outputs: Any) -> tf.Tensor:
        values = tf.convert_to_tensor(function(targets, outputs))
        return tf.reduce_mean(values, axis=list(range(1, len(values.shape)))) if len(values.shape) > 1 else values

    return each


def _metric(metric: Any, model: keras.Model, dataset: tf.data.Dataset, loss: Any) -> Any:
    """A Keras metric; by its name `accuracy` alone Keras would compare labels with raw outputs."""
    if metric not in ("accuracy", "acc"):
        return keras.metrics.get(metric)
    width, targets = model.output_shape[-1], dataset.element_spec[1].shape
    binary = isinstance(loss, keras.losses.BinaryCrossentropy) or loss is keras.losses.binary_crossentropy
    if width == 1 or binary:
        # Logits are cut at 0 and probabilities at 0.5.
        logits = getattr(loss, "from_logits", False)

        def right(labels: Any, outputs: Any) -> Any:
            return keras.metrics.binary_accuracy(labels, keras.ops.sigmoid(outputs) if logits else outputs)

        return keras.metrics.MeanMetricWrapper(right, name="accuracy")
    if targets.rank == len(model.output_shape) and targets[-1] == width:
        return keras.metrics.CategoricalAccuracy(name="accuracy")
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def _batches(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy, name: str) -> Batches:
    """A caller's batches in the trainer's form; over several devices the uneven last one is padded, weighted zero."""
    spec = getattr(dataset, "element_spec", None)
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            f"{name}: expected a tf.data.Dataset of batches (inputs, targets) or (inputs, targets, weights). "
            f"Received: {spec if spec is not None else type(dataset).__name__}."
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name}: the dataset never ends. Leave out .repeat(), or add .take(number of batches).")
    replicas = strategy.num_replicas_in_sync
    steps, size = _count(dataset, replicas)
    if not steps:
        raise ValueError(f"{name}: expected a dataset with at least one batch. Received: none.")

    def form(inputs: Any, targets: Any, weights: Any = None) -> dict[str, Any]:
        count = tf.shape(tf.nest.flatten(inputs)[0])[0]
        weights = tf.ones([count]) if weights is None else tf.cast(tf.reshape(weights, [count]), tf.float32)
        element = {"inputs": inputs, "targets": targets, "weight": weights, "real": tf.ones([count])}
        if replicas > 1:
            element = tf.nest.map_structure(lambda value: _pad_rows(value, size), element)
        element["weight"] /= tf.maximum(tf.reduce_sum(element["weight"]), 1e-12)
        return element

    return Batches(untuned(dataset.map(form).prefetch(PREFETCHED)), steps, size, endless=False)


def _count(dataset: tf.data.Dataset, replicas: int) -> tuple[int, int]:
    """How many batches there are, and (over several devices) the size to which they are padded."""
    known = int(dataset.cardinality())
    if replicas == 1 and known >= 0:
        return known, 0
    steps, largest = 0, 0
    for batch in dataset:
        steps, largest = steps + 1, max(largest, int(tf.shape(tf.nest.flatten(batch)[0])[0]))
    return steps, -(-largest // replicas) * replicas


def _pad_rows(value: tf.Tensor, size: int) -> tf.Tensor:
    """Rows of zeros up to a full batch."""
    padded = tf.pad(value, [[0, size - tf.shape(value)[0]]] + [[0, 0]] * (value.shape.rank - 1))
    padded.set_shape([size, *value.shape[1:]])
    return padded


def _validator(model: keras.Model, batches: Batches, loss: Loss, scorers: list[Any]) -> Callable[[], Scores]:
    """What gives a caller's metrics, and the mean loss, on his validation batches."""

    @tf.function(reduce_retracing=True, autograph=False)
    def step(inputs: Any, targets: Any, real: tf.Tensor) -> tuple[Any, tf.Tensor]:
        outputs = model(inputs, training=False)
        return outputs, tf.reduce_sum(tf.cast(loss(targets, outputs), tf.float32) * real)

    def validate() -> Scores:
        total = count = 0.0
        for scorer in scorers:
            scorer.reset_state()
        for batch in batches.dataset:
            outputs, loss_sum = step(batch["inputs"], batch["targets"], batch["real"])
            total, count = total + float(loss_sum), count + float(tf.reduce_sum(batch["real"]))
            for scorer in scorers:
                scorer.update_state(batch["targets"], outputs, sample_weight=batch["real"])
        return {**{scorer.name: float(scorer.result()) for scorer in scorers}, "loss": total / max(count, 1.0)}

    return validate

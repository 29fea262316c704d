"""Phases: the head on frozen features, then chosen blocks at a low learning rate; and one phase on a caller's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import evaluation, freezing, solvers
from keras_transfer.backbones import Backbone
from keras_transfer.data.pipeline import Batches, training_batches
from keras_transfer.feature_cache import CachedExamples, FeatureCache
from keras_transfer.labels import Labels
from keras_transfer.recipe import Phase, Recipe
from keras_transfer.tasks.base import Examples, Task
from keras_transfer.training_loop import History, Scores, Watch, train_phase

Loss = Callable[[Any, Any], tf.Tensor]


def solve_head(
    head: keras.Model,
    task: Task,
    labels: Labels,
    recipe: Recipe,
    train: tuple[FeatureCache, np.ndarray],
    validation: tuple[FeatureCache, np.ndarray] | None,
    class_weights: np.ndarray | None,
    groups: list[str] | None = None,
) -> solvers.Solution:
    """The exact head on cached pooled features, put into the head's `logits` layer."""
    problem = task.exact_problem(labels, recipe)
    if problem is None:
        raise ValueError(
            f"head.solver: exact finds a linear head on pooled features. Received: task {recipe.task} with the options "
            f"{dict(recipe.options)}. Use head.solver gradient."
        )

    def arrays(part: tuple[FeatureCache, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return next(iter(part[0].arrays.values())), part[1]

    solution = solvers.solve(
        *arrays(train),
        problem=problem,
        classes=len(labels),
        class_weights=class_weights,
        validation=arrays(validation) if validation else None,
        label_smoothing=recipe.head.label_smoothing,
        seed=recipe.seed,
        groups=groups,
    )
    head.get_layer("logits").set_weights([solution.kernel, solution.bias])
    return solution


def train_head(
    head: keras.Model,
    task: Task,
    labels: Labels,
    recipe: Recipe,
    train: CachedExamples,
    validation: tuple[CachedExamples, list[Any]] | None,
    loss: Loss,
    strategy: tf.distribute.Strategy,
    watch: Watch,
) -> History:
    """The head alone, by gradient descent on cached features."""
    validate = _validator(task, head, validation, labels, loss, recipe, strategy)
    batches = _batches(train, recipe, watch)
    primary = task.primary_metric
    return train_phase(head, batches, validate, recipe.head, loss, primary=primary, strategy=strategy, watch=watch)


def train_joined(
    model: keras.Model,
    backbone: Backbone,
    task: Task,
    labels: Labels,
    recipe: Recipe,
    phase: Phase,
    train: Examples,
    validation: tuple[Examples, list[Any]] | None,
    loss: Loss,
    strategy: tf.distribute.Strategy,
    watch: Watch,
) -> History:
    """The joined model, with the blocks that the phase names unfrozen; all other variables stay as they are.

    Raises:
        RuntimeError: a frozen variable changed.
    """
    policy = freezing.FreezePolicy.parse(phase.trainable)
    freezing.apply(backbone, policy, batchnorm=phase.batchnorm)
    before = freezing.snapshot(model)
    batches = _batches(train, recipe, watch)
    history = train_phase(
        model,
        batches,
        _validator(task, model, validation, labels, loss, recipe, strategy),
        phase,
        loss,
        primary=task.primary_metric,
        strategy=strategy,
        paces=freezing.paces(model, backbone, phase.layer_decay),
        watch=watch,
    )
    freezing.assert_only_changed(before, freezing.snapshot(model), history.trained)
    return history


def _batches(train: Any, recipe: Recipe, watch: Watch) -> Batches:
    """The training batches, from the epoch on that comes next."""
    done = watch.restored.epoch if watch.restored else 0
    return training_batches(train, recipe.data.batch_size, recipe.seed, first_epoch=done)


def _validator(
    task: Task,
    model: keras.Model,
    validation: tuple[Any, list[Any]] | None,
    labels: Labels,
    loss: Loss,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
) -> Callable[[], Scores] | None:
    """What scores the model on the validation split, traced once."""
    if validation is None or not len(validation[0]):
        return None
    examples, references = validation
    predictor = evaluation.Predictor(model, loss, strategy)

    def validate() -> Scores:
        predictions, mean_loss = predictor(task, examples, labels, recipe.data.batch_size)
        return {**task.score(predictions, references, labels), "loss": mean_loss}

    return validate


def run_phase(
    model: keras.Model,
    train: tf.data.Dataset,
    validation: tf.data.Dataset | None,
    phase: Phase,
    *,
    loss: Any = None,
    metrics: Any = None,
) -> History:
    """One phase on a caller's own model and batched datasets.

    Args:
        model: any `keras.Model`. What trains is what `freeze` and `unfreeze` left on, unless `phase.trainable` says
            something other than `none`.
        train: batches (inputs, targets) or (inputs, targets, weights).
        validation: the same; its first metric (higher is better; without metrics, the lower loss) chooses the epoch
            whose weights stay. None keeps the last.
        phase: for example `Phase(epochs=3, learning_rate=1e-5)`.
        loss: a Keras loss or its name; default: the one that the model was compiled with.
        metrics: Keras metrics or their names.

    Raises:
        ValueError: no loss, no epochs, no learning rate, or a dataset without batches.
    """
    if not phase.epochs or phase.learning_rate is None:
        raise ValueError(
            "phase: expected epochs of at least 1 and a learning rate, such as Phase(epochs=3, learning_rate=1e-5). "
            f"Received: epochs={phase.epochs}, learning_rate={phase.learning_rate}."
        )
    if phase.trainable != "none":
        freezing.unfreeze(model, phase.trainable)
    each_loss = _loss_of_each(model, loss)
    strategy = tf.distribute.get_strategy()
    batches = _own_batches(train, strategy, "train")
    scorers = [keras.metrics.get(metric) for metric in metrics or ()]
    validate = None
    if validation is not None:
        held_out = _own_batches(validation, strategy, "validation")

        def validate() -> Scores:
            return _score_own(model, held_out, each_loss, scorers)

    before = freezing.snapshot(model)
    history = train_phase(
        model, batches, validate, phase, each_loss, primary=scorers[0].name if scorers else "", strategy=strategy
    )
    freezing.assert_only_changed(before, freezing.snapshot(model), history.trained)
    return history


def _loss_of_each(model: keras.Model, loss: Any) -> Loss:
    """A Keras loss as one number an example."""
    loss = loss if loss is not None else getattr(model, "loss", None)
    if loss is None:
        raise ValueError(
            "loss: expected a Keras loss, such as keras.losses.SparseCategoricalCrossentropy(from_logits=True), or a "
            "compiled model. Received: None."
        )
    function = keras.losses.get(loss)

    def each(targets: Any, outputs: Any) -> tf.Tensor:
        # `call` is before the reduction; a bare function has none.
        values = function.call(targets, outputs) if isinstance(function, keras.losses.Loss) else None
        values = function(targets, outputs) if values is None else values
        rank = values.shape.rank
        return tf.reduce_mean(values, axis=list(range(1, rank))) if rank and rank > 1 else values

    return each


def _own_batches(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy, name: str) -> Batches:
    """A caller's batches in the trainer's form; over several devices the uneven last one is padded, weighted zero."""
    steps, largest = 0, 0
    for batch in dataset:
        steps, largest = steps + 1, max(largest, int(tf.shape(tf.nest.flatten(batch)[0])[0]))
    if not steps:
        raise ValueError(f"{name}: expected a dataset with at least one batch. Received: none.")
    size = -(-largest // strategy.num_replicas_in_sync) * strategy.num_replicas_in_sync

    def form(inputs: Any, targets: Any, weights: Any = None) -> dict[str, Any]:
        count = tf.shape(tf.nest.flatten(inputs)[0])[0]
        weights = tf.ones([count]) if weights is None else tf.cast(tf.reshape(weights, [count]), tf.float32)
        real = tf.ones([count])
        element = {"inputs": inputs, "targets": targets, "weight": weights, "real": real}
        if strategy.num_replicas_in_sync > 1:
            element = tf.nest.map_structure(lambda value: _pad_rows(value, size), element)
        element["weight"] /= tf.maximum(tf.reduce_sum(element["weight"]), 1e-12)
        return element

    return Batches(dataset.map(form).prefetch(tf.data.AUTOTUNE), steps, size, endless=False)


def _pad_rows(value: tf.Tensor, size: int) -> tf.Tensor:
    """Rows of zeros up to a full batch."""
    padded = tf.pad(value, [[0, size - tf.shape(value)[0]]] + [[0, 0]] * (value.shape.rank - 1))
    padded.set_shape([size, *value.shape[1:]])
    return padded


def _score_own(model: keras.Model, batches: Batches, loss: Loss, scorers: list[Any]) -> Scores:
    """A caller's metrics on his validation batches."""
    total = count = 0.0
    for scorer in scorers:
        scorer.reset_state()
    for batch in batches.dataset:
        outputs = model(batch["inputs"], training=False)
        total += float(tf.reduce_sum(loss(batch["targets"], outputs) * batch["real"]))
        count += float(tf.reduce_sum(batch["real"]))
        for scorer in scorers:
            scorer.update_state(batch["targets"], outputs, sample_weight=batch["real"])
    return {**{scorer.name: float(scorer.result()) for scorer in scorers}, "loss": total / max(count, 1.0)}

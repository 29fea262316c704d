"""Phases: the head on frozen features, then chosen blocks at a low learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import devices, evaluation, freezing, solvers
from keras_transfer.backbones import Backbone
from keras_transfer.caching import AtBoundary
from keras_transfer.data.pipeline import Batches, training_batches
from keras_transfer.feature_cache import CachedExamples, FeatureCache
from keras_transfer.labels import Labels
from keras_transfer.recipe import Phase, Recipe
from keras_transfer.tasks.base import Examples, Task
from keras_transfer.training_loop import History, Scores, Watch, train_phase

Loss = Callable[[Any, Any], tf.Tensor]
Outcome = tuple[list[evaluation.Prediction], float]
"""The predictions of a split, one a record, and the mean loss of its examples."""


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
        targets = part[1]
        # Mixing needs targets as shares of the classes; without a mixture each has one class.
        targets = targets.argmax(-1) if problem == "softmax" and targets.ndim == 2 else targets
        return next(iter(part[0].arrays.values())), targets

    solution = solvers.solve(
        *arrays(train),
        problem=problem,
        classes=len(labels),
        class_weights=class_weights,
        validation=arrays(validation) if validation else None,
        label_smoothing=recipe.head.label_smoothing or 0.0,
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
    predictor = evaluation.Predictor(head, task.loss(labels, recipe, None), strategy)
    validate = _validator(task, predictor, validation, labels, recipe)
    batches = _batches(train, recipe, watch)
    primary = task.primary_metric
    return train_phase(
        head,
        batches,
        validate,
        recipe.head,
        loss,
        primary=primary,
        strategy=strategy,
        watch=watch,
        xla=recipe.devices.xla,
    )


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
    cached: AtBoundary | None = None,
    predictor: evaluation.Predictor | None = None,
) -> tuple[History, Outcome | None]:
    """The joined model, with the blocks that the phase names unfrozen; all other variables stay as they are.

    With `cached`, what `caching.at_boundary` found, the upper part alone is run; the joined model, whose layers it
    shares, ends with the same weights. A `predictor` of the joined model serves for its validation, since another one
    takes seconds to trace.

    Returns:
        What happened, and what the joined model as it is now predicts of the validation split, where that is known.

    Raises:
        RuntimeError: a frozen variable changed.
    """
    policy = freezing.FreezePolicy.parse(phase.trainable)
    freezing.apply(backbone, policy, batchnorm=phase.batchnorm)
    before = freezing.snapshot(model)
    trained, inputs = (cached.parts.suffix, cached.train) if cached else (model, train)
    held_out: tuple[Any, list[Any]] | None = validation
    if cached:
        held_out = (cached.validation, validation[1]) if validation and cached.validation else None
        watch = _without_lower_part(watch, trained)
    if cached or predictor is None:
        predictor = evaluation.Predictor(trained, task.loss(labels, recipe, None), strategy)
    validate = _validator(task, predictor, held_out, labels, recipe)
    history = train_phase(
        trained,
        _batches(inputs, recipe, watch),
        validate,
        phase,
        loss,
        primary=task.primary_metric,
        strategy=strategy,
        paces=freezing.paces(model, backbone, phase.layer_decay),
        watch=watch,
        xla=recipe.devices.xla,
        untrained=phase is recipe.head or (phase is recipe.fine_tune and recipe.head.epochs == 0),
        in_bfloat16=backbone.model._flatten_layers() if devices.fast_math(recipe.devices) else (),
    )
    freezing.assert_only_changed(before, freezing.snapshot(model), history.trained)
    # What a cache gives may differ in the last digits: only predictions of the joined model itself are handed on.
    is_last = bool(history.epochs) and history.best_epoch == history.epochs[-1]["epoch"]
    return history, validate.outcome if validate is not None and is_last and cached is None else None


def _without_lower_part(watch: Watch, upper: keras.Model) -> Watch:
    """The state to go on from, without what only the joined model has (the seeds of inactive dropout)."""
    if watch.restored is None:
        return watch
    own = {variable.path for variable in upper.variables}

    def kept(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {path: value for path, value in weights.items() if path in own}

    state = watch.restored
    return replace(watch, restored=replace(state, weights=kept(state.weights), best=kept(state.best)))


def _batches(train: Any, recipe: Recipe, watch: Watch) -> Batches:
    """The training batches, from the epoch on that comes next."""
    done = watch.restored.epoch if watch.restored else 0
    return training_batches(train, recipe.data.batch_size, recipe.seed, first_epoch=done)


def _validator(
    task: Task,
    predictor: evaluation.Predictor,
    validation: tuple[Any, list[Any]] | None,
    labels: Labels,
    recipe: Recipe,
) -> _Validator | None:
    """What scores the model on the validation split, where there is one."""
    if validation is None or not len(validation[0]):
        return None
    return _Validator(task, predictor, *validation, labels, recipe)


class _Validator:
    """Scores the model as it is on the validation split, by the loss without class weights as on every other split."""

    def __init__(
        self,
        task: Task,
        predictor: evaluation.Predictor,
        examples: Any,
        references: list[Any],
        labels: Labels,
        recipe: Recipe,
    ):
        self._task, self._predictor, self._labels = task, predictor, labels
        self._examples, self._references = examples, references
        self._batch_size = max(recipe.data.batch_size, getattr(examples, "scoring_batch", 0))
        self.outcome: Outcome | None = None
        """Of the last call."""

    def __call__(self) -> Scores:
        self.outcome = self._predictor(self._task, self._examples, self._labels, self._batch_size)
        predictions, mean_loss = self.outcome
        return {**self._task.score(predictions, self._references, self._labels), "loss": mean_loss}

"""The training loop of one phase, under tf.distribute, from one device to many.

A loop of our own rather than `Model.fit`: gradients are clipped by their norm over all devices, padding has weight
zero, the weights of the best epoch (the state before the first one included) are restored, a loss that is not a number
or Ctrl-C keeps them, and the same code serves one device, several, and several machines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import devices, fused_gelu
from keras_transfer.data.pipeline import Batches, unwrap
from keras_transfer.recipe import Phase
from keras_transfer.schedules import optimizer_for

SECONDS_PER_CALL = 0.25  # of steps inside one traced loop: progress stays alive, and Python's part small

Loss = Callable[[Any, Any], tf.Tensor]
"""(targets, raw outputs) -> float [B], the loss of each example."""
Scores = dict[str, float]


@dataclass
class History:
    """What happened in a phase."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch: `epoch` (1 is the first), `loss`, `seconds`, `val_*` scores. Row 0 is the state before."""
    best_epoch: int = 0
    """The epoch whose weights the model holds at the end, by `Phase.keep`; 0 is the state before the phase."""
    stopped: str = "done"
    """`done`, `patience`, `not a number`, `interrupted`."""
    trained: list[str] = field(default_factory=list)
    """Paths of the variables that were trained."""

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch."""
        return next((row for row in self.epochs if row["epoch"] == self.best_epoch), {})


@dataclass
class Watch:
    """Who follows a phase: progress, and where its state is kept. Every part may be left out."""

    progress: Callable[[int, int, int, int, float], None] | None = None
    """(epoch, epochs, step, steps, loss so far)"""
    epoch_end: Callable[[dict[str, float]], None] | None = None
    save: Callable[[PhaseState], None] | None = None
    """Called after each epoch with all that resuming needs."""
    restored: PhaseState | None = None


@dataclass
class PhaseState:
    """A phase after some epochs; arrays by variable path."""

    epoch: int
    weights: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    optimizer: list[np.ndarray]
    rows: list[dict[str, float]]
    best_epoch: int


class TrainingError(RuntimeError):
    """A phase broke a promise that the trainer makes."""


def train_phase(
    model: keras.Model,
    batches: Batches,
    validate: Callable[[], Scores] | None,
    phase: Phase,
    loss: Callable[[Any, Any], tf.Tensor],
    *,
    primary: str = "",
    strategy: tf.distribute.Strategy | None = None,
    paces: Mapping[str, float] | None = None,
    watch: Watch | None = None,
    xla: bool = False,
    untrained: bool = False,
    in_bfloat16: Sequence[keras.Layer] = (),
) -> History:
    """Trains the model's trainable variables; on return it holds the weights of the best epoch, or of the last.

    Args:
        model: a Keras model from the batches' inputs to raw outputs.
        batches: training batches; see `data.pipeline`.
        validate: returns the scores of the model as it is, with `loss` among them; None: the last epoch is the best.
        phase: epochs, learning rate, schedule, clipping, patience, which epoch is kept; all decided.
        loss: (targets, outputs) -> float [B], the loss of each example.
        primary: the score (higher is better) that decides; ties fall to the lower `loss`. "": the loss alone.
        strategy: the one under whose scope the model was made.
        paces: share of the learning rate by variable path.
        watch: progress and state keeping.
        xla: compile the step by XLA; one device only.
        untrained: the head's weights are still random, so that scores from before the first epoch would say nothing.
        in_bfloat16: layers whose part of the step is computed in it, though they are float32.

    Raises:
        TrainingError: frozen variables changed.
    """
    strategy = strategy or tf.distribute.get_strategy()
    watch = watch or Watch()
    history = History(trained=[v.path for v in model.trainable_variables])
    epochs = phase.epochs or 0
    if not epochs or not history.trained:
        return history
    keeper = _BestWeights(model, primary)
    with strategy.scope():
        optimizer = optimizer_for(phase, model.trainable_variables, epochs * batches.steps, paces)
        if keras.config.dtype_policy().name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    run_steps = _make_loop(model, loss, optimizer, phase.clip_norm, strategy, xla, in_bfloat16)
    iterator = None
    first = 1
    try:
        if watch.restored is not None:
            first = _restore(watch.restored, model, optimizer, keeper, history)
            if validate is not None and phase.patience and first - 1 - keeper.epoch >= phase.patience:
                first, history.stopped = epochs + 1, "patience"
        elif validate is not None and not untrained:
            row = {"epoch": 0, **_prefixed(validate())}
            history.epochs.append(row)
            keeper.offer(row)
            if watch.epoch_end:
                watch.epoch_end(row)
        dataset = strategy.experimental_distribute_dataset(batches.dataset)
        for epoch in range(first, epochs + 1):
            started = time.monotonic()
            if iterator is None or not batches.endless:
                iterator = iter(dataset)
            mean_loss = _run_epoch(run_steps, iterator, batches.steps, epoch, epochs, watch)
            row = {"epoch": epoch, "loss": mean_loss, "seconds": round(time.monotonic() - started, 3)}
            if not math.isfinite(mean_loss):
                history.stopped = "not a number"
                history.epochs.append(row)
                break
            if validate is not None:
                row |= _prefixed(validate())
            history.epochs.append(row)
            keeper.offer(row, always=validate is None or phase.keep == "last")
            if watch.epoch_end:
                watch.epoch_end(row)
            if watch.save:
                watch.save(_state(epoch, model, optimizer, keeper, history))
            if validate is not None and phase.patience and epoch - keeper.epoch >= phase.patience:
                history.stopped = "patience"
                break
    except KeyboardInterrupt:
        history.stopped = "interrupted"
    keeper.restore()
    history.best_epoch = keeper.epoch
    return history


def _run_epoch(run_steps: Any, iterator: Any, steps: int, epoch: int, epochs: int, watch: Watch) -> float:
    """One epoch in calls of about `SECONDS_PER_CALL`; the mean loss of its examples."""
    done, chunk, total, count = 0, 1, 0.0, 0.0
    while done < steps:
        chunk = min(chunk, steps - done)
        started = time.monotonic()
        loss_sum, real_sum = run_steps(iterator, tf.constant(chunk))
        total, count = total + float(loss_sum), count + float(real_sum)
        done += chunk
        mean = total / max(count, 1.0)
        if watch.progress:
            watch.progress(epoch, epochs, done, steps, mean)
        if not math.isfinite(mean):
            return mean
        if time.monotonic() - started < SECONDS_PER_CALL / 2:
            chunk *= 2
    return total / max(count, 1.0)


def _make_loop(
    model: keras.Model,
    loss: Callable[[Any, Any], tf.Tensor],
    optimizer: Any,
    clip_norm: float,
    strategy: tf.distribute.Strategy,
    xla: bool,
    in_bfloat16: Sequence[keras.Layer],
) -> Callable[[Any, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A traced loop of steps: (iterator, number of steps) -> (sum of losses, number of examples)."""
    replicas = strategy.num_replicas_in_sync
    variables = model.trainable_variables
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    # XLA fuses the whole step by itself.
    layers = () if xla else tuple(model._flatten_layers())

    # Keras code is plain TensorFlow; converting it recursively would only slow the tracing.
    @tf.autograph.experimental.do_not_convert
    def replica_step(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        values = [variable.value for variable in variables]
        # Watching only what trains lets the graph end the backward pass at the frozen boundary.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            with devices.in_bfloat16(in_bfloat16), fused_gelu.in_one_pass(layers):
                outputs = model(unwrap(batch["inputs"]), training=True)
            each = tf.cast(loss(batch["targets"], outputs), tf.float32)
            # Weights sum to 1 over the global batch, so that the sum over devices is the batch's mean.
            mean = tf.reduce_sum(each * batch["weight"])
            objective = mean + tf.add_n(model.losses) / replicas if model.losses else mean
            objective = optimizer.scale_loss(objective) if scaled else objective
        gradients = tape.gradient(objective, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if clip_norm:
            limit = clip_norm * (optimizer.dynamic_scale if scaled else 1.0)
            gradients = _clip_over_devices(gradients, limit, replicas)
        optimizer.apply(gradients, variables)
        return tf.reduce_sum(each * batch["real"]), tf.reduce_sum(batch["real"])

    step = tf.function(replica_step, jit_compile=True, autograph=False) if xla else replica_step

    @tf.function(reduce_retracing=True)
    def run_steps(iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss_sum, real_sum = tf.constant(0.0), tf.constant(0.0)
        for _ in tf.range(steps):
            each_loss, each_real = strategy.run(step, args=(next(iterator),))
            loss_sum += strategy.reduce(tf.distribute.ReduceOp.SUM, each_loss, axis=None)
            real_sum += strategy.reduce(tf.distribute.ReduceOp.SUM, each_real, axis=None)
        return loss_sum, real_sum

    return run_steps


def _clip_over_devices(gradients: list[tf.Tensor], limit: Any, replicas: int) -> list[tf.Tensor]:
    """Clips by the global norm of the gradient summed over all devices, as one device would."""
    if replicas > 1:
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    clipped, _ = tf.clip_by_global_norm(gradients, limit)
    # `optimizer.apply` sums over replicas once more.
    return [gradient / replicas for gradient in clipped] if replicas > 1 else clipped


class _BestWeights:
    """Keeps a copy of what training changes, from the epoch with the best score."""

    def __init__(self, model: keras.Model, primary: str):
        self._model, self._primary = model, primary
        self._score: tuple[float, float] | None = None
        self.epoch = 0
        self.weights = self.current()

    def current(self) -> dict[str, np.ndarray]:
        """Copies of the trainable variables, and of moving statistics of trainable layers."""
        changing = {id(v) for v in _changing(self._model)}
        return {key: np.array(v.numpy()) for key, v in _by_key(self._model).items() if id(v) in changing}

    def offer(self, row: Mapping[str, float], always: bool = False) -> None:
        """Takes the model's weights if the row's score is better than any before."""
        loss = row.get("val_loss", math.inf)
        score = (row.get(f"val_{self._primary}", 0.0) if self._primary else 0.0, -loss)
        if any(math.isnan(part) for part in score):
            return
        if always or self._score is None or score > self._score:
            self._score, self.epoch, self.weights = score, int(row["epoch"]), self.current()

    def restore(self) -> None:
        """Puts the best weights into the model."""
        assign(self._model, self.weights)


def _changing(model: keras.Model) -> list[Any]:
    """Trainable variables, and the non-trainable ones (moving statistics) that a training step may change."""
    frozen = {id(v) for layer in model._flatten_layers() if not layer.trainable for v in layer.variables}
    return [v for v in model.variables if v.trainable or id(v) not in frozen]


def _by_key(model: keras.Model) -> dict[str, Any]:
    """Variables by path; of several with one path (as in towers built alike) the later ones are numbered."""
    found: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for variable in model.variables:
        number = seen[variable.path] = seen.get(variable.path, 0) + 1
        found[variable.path if number == 1 else f"{variable.path}#{number}"] = variable
    return found


def assign(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Sets variables by path.

    Raises:
        ValueError: a path that the model does not have.
    """
    variables = _by_key(model)
    unknown = sorted(set(weights) - set(variables))
    if unknown:
        raise ValueError(
            f"Weights for variables that the model does not have. Expected its own. Received: {unknown[:3]}"
        )
    for path, value in weights.items():
        variables[path].assign(value)


def _state(epoch: int, model: Any, optimizer: Any, keeper: _BestWeights, history: History) -> PhaseState:
    numbers = [np.array(v.numpy()) for v in optimizer.variables]
    return PhaseState(epoch, keeper.current(), keeper.weights, numbers, list(history.epochs), keeper.epoch)


def _restore(state: PhaseState, model: Any, optimizer: Any, keeper: _BestWeights, history: History) -> int:
    """Puts a kept state back; the next epoch's number."""
    history.epochs = list(state.rows)
    for row in state.rows:
        if row["epoch"] == state.best_epoch:
            assign(model, state.best)
            keeper.offer(row, always=True)
    assign(model, state.weights)
    for variable, value in zip(optimizer.variables, state.optimizer, strict=True):
        variable.assign(value)
    return state.epoch + 1


def _prefixed(scores: Mapping[str, Any]) -> dict[str, float]:
    return {f"val_{name}": float(value) for name, value in scores.items() if isinstance(value, int | float)}

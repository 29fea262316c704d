"""Evaluation: a model's predictions on every example of a split, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.data.pipeline import evaluation_batches, unwrap
from keras_transfer.labels import Labels
from keras_transfer.tasks.base import Task

Prediction = dict[str, Any]


class Predictor:
    """Runs a model over examples, on all devices; traced once and used again each epoch."""

    def __init__(
        self,
        model: Callable[..., Any],
        loss: Callable[[Any, Any], tf.Tensor] | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self._strategy = strategy or tf.distribute.get_strategy()

        def replica(batch: Any) -> Any:
            outputs = model(unwrap(batch["inputs"]), training=False)
            each = loss(batch["targets"], outputs) if loss else tf.zeros(tf.shape(batch["real"]))
            outputs = tf.nest.map_structure(_full_precision, outputs)
            return outputs, tf.cast(each, tf.float32), batch["real"], batch["index"]

        # Of an iterator, whose batches of any length are one trace.
        @tf.function(reduce_retracing=True, autograph=False)
        def step(iterator: Any) -> Any:
            return self._strategy.run(replica, args=(next(iterator),))

        self._step = step
        # Tracing a dataset, and preparing it for a new iterator, take longer than a pass over few examples: one endless
        # iterator is kept from epoch to epoch. Where in the round a pass begins makes no difference to it.
        self._held: tuple[Any, int, Iterator[Any], int] | None = None

    def __call__(
        self,
        task: Task,
        examples: Any,
        labels: Labels,
        batch_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Prediction], float]:
        """One prediction a record, in the order in which records first appear, and the mean loss of the examples."""
        batch_size = _even(min(batch_size, len(examples)), self._strategy.num_replicas_in_sync)
        if self._held is None or self._held[0] is not examples or self._held[1] != batch_size:
            batches = evaluation_batches(examples, batch_size)
            iterator = iter(self._strategy.experimental_distribute_dataset(batches.dataset.repeat()))
            self._held = (examples, batch_size, iterator, batches.steps)
        _, _, iterator, steps = self._held
        parts: list[Prediction | None] = [None] * len(examples)
        total, done = 0.0, 0
        for _ in range(steps):
            local = self._local(self._step(iterator))
            outputs, each, real, index = local
            kept = real > 0
            rows = index[kept]
            outputs = tf.nest.map_structure(lambda value, kept=kept: value[kept], outputs)
            total += float(each[kept].sum())
            decoded = task.decode(outputs, [examples.meta[row] for row in rows], labels)
            for row, part in zip(rows, decoded, strict=True):
                parts[row] = part
            done += len(rows)
            if progress:
                progress(done)
        merged = [task.merge(group, labels) for group in _by_id(examples.ids, parts)]
        return merged, total / max(len(examples), 1)

    def _local(self, result: Any) -> Any:
        """Per-replica results as whole NumPy batches, in order."""

        def gather(value: Any) -> np.ndarray:
            return np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(value)])

        return tf.nest.map_structure(gather, result)


def scores_with_intervals(
    task: Task, predictions: Sequence[Any], references: Sequence[Any], labels: Labels
) -> dict[str, Any]:
    """The scores of a split, and under `intervals` the 95 % bootstrap interval of the main ones."""
    return {
        **task.score(predictions, references, labels),
        "intervals": task.intervals(predictions, references, labels),
    }


def _by_id(ids: Sequence[str], parts: Sequence[Any]) -> list[list[Any]]:
    """The parts of each record together."""
    groups: dict[str, list[Any]] = {}
    for name, part in zip(ids, parts, strict=True):
        groups.setdefault(name, []).append(part)
    return list(groups.values())


def _even(size: int, replicas: int) -> int:
    """The next size that all replicas share evenly."""
    return -(-max(size, 1) // replicas) * replicas


def _full_precision(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value

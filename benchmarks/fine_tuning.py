"""Fine-tuning the last stage on cached activations, against `fit` with the same variables trainable: digits.

    python benchmarks/fine_tuning.py [--quick]

Real digits and weights.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from digits import arrays, batches, compiled, digits, plain_keras
from measuring import Row, Sample, in_turn

from keras_transfer import boundary_cache, feature_cache, freezing, phases
from keras_transfer.caching import AtBoundary
from keras_transfer.feature_cache import CachedExamples
from keras_transfer.recipe import Phase
from keras_transfer.training_loop import Watch

EPOCHS = 5


class Epochs(keras.callbacks.Callback):
    """Wall-clock and processor seconds of each epoch of training."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clocks."""
        self._started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Reads them."""
        self.seconds.append(time.perf_counter() - self._started[0])
        self.cpu_seconds.append(time.process_time() - self._started[1])


def measure(quick: bool) -> list[Row]:
    """An epoch once all is traced, and five epochs with all that comes before them."""
    repeats = 1 if quick else 5
    data = digits(limit=300, data__validation_share=0.02, data__test_share=0.02) if quick else digits()
    train, held_out = arrays(data.examples["train"]), arrays(data.examples["validation"])
    start, head_start = data.joined.model.get_weights(), data.joined.head.get_weights()
    phase = Phase(epochs=EPOCHS, learning_rate=1e-4, trainable="last:1", schedule="constant", warmup_share=0.0)
    joined = data.joined

    def ours(sample: Sample, whole: bool) -> None:
        joined.model.set_weights(start)
        freezing.apply(joined.backbone, phase.trainable, phase.batchnorm)
        with tempfile.TemporaryDirectory() as folder:
            parts = boundary_cache.cut(joined.backbone, joined.encoder, joined.head, phase)
            cached = CachedExamples(
                feature_cache.compute(parts.prefix, data.examples["train"], directory=Path(folder)),
                data.examples["train"],
                name=boundary_cache.BOUNDARY,
                extras=parts.extras,
            )
            clock = Epochs()
            clock.on_epoch_begin(0)

            def ended(row: Any) -> None:
                clock.on_epoch_end(0)
                clock.on_epoch_begin(0)

            history = phases.train_joined(
                joined.model,
                joined.backbone,
                data.found.task,
                data.found.labels,
                data.recipe,
                phase,
                data.examples["train"],
                None,
                data.loss,
                tf.distribute.get_strategy(),
                Watch(epoch_end=ended),
                AtBoundary(parts, cached, None),
            )
            assert len(history.epochs) == EPOCHS
        if not whole:
            _of_an_epoch(sample, clock)
        sample.accuracy = _accuracy(joined.model, held_out)

    def theirs(sample: Sample, whole: bool) -> None:
        model, base = plain_keras(data)
        model.layers[-1].set_weights(head_start)
        chosen = set(data.joined.backbone.blocks[-1].layers)
        base.trainable = True
        for layer in base.layers:
            layer.trainable = layer.name in chosen and not isinstance(layer, keras.layers.BatchNormalization)
        compiled(model, phase.learning_rate or 0.0)
        clock = Epochs()
        model.fit(batches(*train, True), epochs=EPOCHS, verbose=0, callbacks=[clock])
        if not whole:
            _of_an_epoch(sample, clock)
        sample.accuracy = _accuracy(model, held_out)

    against = "fit, the same variables trainable, BatchNorm frozen by hand"
    epoch = Row("fine-tuning the last stage, an epoch", against, "3.3", note=f"{len(train[1]):,} images")
    whole = Row(f"the same, caching pass and {EPOCHS} epochs", against, "2.3")
    return [
        in_turn(epoch, lambda s: ours(s, False), lambda s: theirs(s, False), repeats),
        in_turn(whole, lambda s: ours(s, True), lambda s: theirs(s, True), repeats),
    ]


def _of_an_epoch(sample: Sample, clock: Epochs) -> None:
    """The median of the epochs after the first two, which trace and warm up."""
    sample.seconds = statistics.median(clock.seconds[2:])
    sample.cpu_seconds = statistics.median(clock.cpu_seconds[2:])


def _accuracy(model: keras.Model, part: Any) -> float:
    return float((model.predict(part[0], verbose=0).argmax(-1) == part[1]).mean())


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["fine_tuning"]))

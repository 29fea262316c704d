"""Fine-tuning the last stage or layer on cached activations, against `fit` with the same variables trainable.

    python benchmarks/fine_tuning.py [--quick]

Real data and weights: digits with EfficientNet-Lite0 at 96 px, and movie reviews with MiniLM, by length in both.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import keras
import plain_keras
import tensorflow as tf
from measuring import Row, Sample, in_turn
from subjects import AS_PLAIN, BATCH, SILENT, Subject, digits, empty_cache, in_memory, reviews

from keras_transfer import caching, freezing, phases
from keras_transfer.recipe import Phase, override
from keras_transfer.training_loop import Watch

EPOCHS = 5
RATE = 1e-4
AGAINST = "fit, the same variables trainable, BatchNorm frozen by hand"


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

    def into(self, sample: Sample) -> None:
        """The median of the epochs after the first two, which trace and warm up."""
        sample.parts = {
            "seconds": statistics.median(self.seconds[2:]),
            "cpu_seconds": statistics.median(self.cpu_seconds[2:]),
        }


def measure(quick: bool, chosen: str = "") -> Iterator[Row]:
    """For each subject: an epoch once all is traced, and five epochs with all that comes before them."""
    subjects = (
        ("digits", digits, "the last stage", "3.3", "2.3"),
        ("reviews", reviews, "the last layer", "2.5", "2.1"),
    )
    for name, make, what, epoch_goal, whole_goal in subjects:
        if chosen not in ("", name):
            continue
        subject = make(quick)
        found = _samples(subject, 1 if quick else 2)
        of_epochs = {way: [_of_an_epoch(sample) for sample in samples] for way, samples in found.items()}
        note = f"{subject.counts()}; {_ceiling(subject)}"
        yield Row(
            f"fine-tuning {what}, {name}, an epoch", AGAINST, epoch_goal, of_epochs["ours"], of_epochs["theirs"], note
        )
        yield Row(
            f"the same, {name}, caching pass and {EPOCHS} epochs", AGAINST, whole_goal, found["ours"], found["theirs"]
        )


def _samples(subject: Subject, repeats: int) -> dict[str, list[Sample]]:
    phase = Phase(epochs=EPOCHS, learning_rate=RATE, trainable="last:1", **AS_PLAIN)
    recipe = override(subject.recipe, {"fine_tune": phase, "cache": "boundary", "head.epochs": 0})
    joined = subject.joined
    image = joined.backbone.modality == "image"
    examples = {"train": subject.examples["train"]}
    decoded = in_memory(examples["train"]) if image else examples["train"]
    held_out = plain_keras.held_out(subject.examples["validation"], BATCH)
    freezing.apply(joined.backbone, phase.trainable)
    wanted = _numbers(joined.model)

    def ours(sample: Sample, repeat: int) -> None:
        subject.reset(repeat)
        clock = Epochs()

        def ended(row: Any) -> None:
            clock.on_epoch_end(0)
            clock.on_epoch_begin(0)

        with empty_cache():
            started = time.perf_counter(), time.process_time()
            cached = caching.at_boundary(joined.backbone, joined.encoder, joined.head, examples, recipe, SILENT)
            clock.on_epoch_begin(0)
            phases.train_joined(
                joined.model,
                joined.backbone,
                subject.found.task,
                subject.found.labels,
                override(recipe, {"seed": repeat}),
                phase,
                examples["train"],
                None,
                subject.loss,
                tf.distribute.get_strategy(),
                Watch(epoch_end=ended),
                cached,
            )
            sample.seconds = time.perf_counter() - started[0]
            sample.cpu_seconds = time.process_time() - started[1]
            del cached
        clock.into(sample)
        sample.accuracy = plain_keras.accuracy(plain_keras.compiled(joined.model, RATE), held_out)

    def theirs(sample: Sample, repeat: int) -> None:
        subject.reset(repeat)
        started = time.perf_counter(), time.process_time()
        model, base = plain_keras.model_of(subject)
        plain_keras.unfreeze(base, set(joined.backbone.blocks[-1].layers))
        assert _numbers(model) == wanted, "the same variables train"
        plain_keras.compiled(model, RATE)
        clock = Epochs()
        data = plain_keras.training(decoded, BATCH, repeat)
        model.fit(**data, epochs=EPOCHS, verbose=0, callbacks=[clock])
        sample.seconds = time.perf_counter() - started[0]
        sample.cpu_seconds = time.process_time() - started[1]
        clock.into(sample)
        sample.accuracy = plain_keras.accuracy(model, held_out)

    return in_turn({"theirs": theirs, "ours": ours}, repeats)


def _numbers(model: keras.Model) -> int:
    """That train."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def _of_an_epoch(sample: Sample) -> Sample:
    return Sample(sample.parts["seconds"], sample.parts["cpu_seconds"], sample.megabytes, sample.accuracy)


def _ceiling(subject: Subject) -> str:
    """(L + 2k) / 3k, with the measured share of the last block in a forward pass for k / L."""
    backbone, encoder = subject.joined.backbone, subject.joined.encoder
    phase = Phase(epochs=1, learning_rate=RATE, trainable="last:1")
    recipe = override(subject.recipe, {"fine_tune": phase, "cache": "boundary"})
    few = {"train": subject.examples["validation"]}
    with empty_cache():
        found = caching.at_boundary(backbone, encoder, subject.joined.head, few, recipe, SILENT)
        assert found is not None
        whole = _seconds(subject.joined.model, few["train"])
        above = _seconds(found.parts.suffix, found.train)
    share = min(1.0, above / whole)
    return (
        f"ceiling of an epoch (L + 2k) / 3k = {(1 + 2 * share) / (3 * share):.2f}, with k / L = {share:.2f} as measured"
    )


def _seconds(model: keras.Model, examples: Any) -> float:
    """Of a forward pass, the second time; the batches are loaded before."""
    inputs = [batch[0] for batch in plain_keras.held_out(examples, BATCH)]
    call = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True, autograph=False)
    for _ in range(2):
        started = time.perf_counter()
        for batch in inputs:
            call(batch)
        seconds = time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["fine_tuning"]))

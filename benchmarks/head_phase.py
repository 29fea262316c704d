"""The head phase on cached features, against a frozen backbone inside `fit`; from raw files to a trained head.

    python benchmarks/head_phase.py [--quick]

Real data and weights: digits with EfficientNet-Lite0 at 96 px, and movie reviews with MiniLM, by length in both.
Reviews in bfloat16 too (`devices.fast_math`, as in their recipe), where the processor has it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from unittest import mock

import plain_keras
import tensorflow as tf
from measuring import Row, Sample, in_turn
from subjects import AS_PLAIN, BATCH, SILENT, Subject, digits, empty_cache, in_memory, reviews

from keras_transfer import caching, devices, phases
from keras_transfer.recipe import DeviceSpec, Phase, override
from keras_transfer.training_loop import Watch

EPOCHS = 20
RATE = 1e-3


def measure(quick: bool, chosen: str = "") -> Iterator[Row]:
    """For each subject: against `fit`, the same with all but the cache off, and against one `predict` pass.

    Texts also in bfloat16, on a processor that multiplies matrices of it.
    """
    for name, make in (("digits", digits), ("reviews", reviews)):
        if chosen in ("", name):
            yield from _rows(name, make(quick), 1 if quick else 2)


def _rows(name: str, subject: Subject, repeats: int) -> Iterator[Row]:
    recipe = override(
        subject.recipe,
        {"head": Phase(epochs=EPOCHS, learning_rate=RATE, solver="gradient", **AS_PLAIN), "fine_tune.epochs": 0},
    )
    keep = in_memory if subject.joined.backbone.modality == "image" else lambda examples: examples
    theirs_of = {split: keep(subject.examples[split]) for split in ("train", "validation")}
    validation = plain_keras.held_out(theirs_of["validation"], BATCH)

    def ours(sample: Sample, repeat: int, fast: bool = False) -> None:
        subject.reset(repeat)
        chosen = override(recipe, {"seed": repeat, "devices.fast_math": fast})
        with empty_cache():
            cached = caching.head_examples(
                caching.encode_of(subject.joined.encoder, chosen), subject.examples, chosen, SILENT
            )
            assert cached is not None
            history = phases.train_head(
                subject.joined.head,
                subject.found.task,
                subject.found.labels,
                chosen,
                cached["train"],
                (cached["validation"], subject.validation[1]),
                subject.loss,
                tf.distribute.get_strategy(),
                Watch(),
            )
            del cached
        sample.accuracy = history.best["val_accuracy"]

    def in_bfloat16(sample: Sample, repeat: int) -> None:
        ours(sample, repeat, fast=True)

    def cache_alone(sample: Sample, repeat: int) -> None:
        # Weights stay variables, features are read from disk, and a head is scored in batches of the training's size.
        with (
            mock.patch("keras_transfer.feature_cache.FOLD_FROM", 1 << 40),
            mock.patch("keras_transfer.cached_examples.IN_MEMORY_BYTES", 0),
            mock.patch("keras_transfer.cached_examples.SCORING_BYTES", 0),
        ):
            ours(sample, repeat)

    def theirs(sample: Sample, repeat: int) -> None:
        subject.reset(repeat)
        model, _ = plain_keras.model_of(subject)
        plain_keras.compiled(model, RATE)
        data = plain_keras.training(theirs_of["train"], BATCH, repeat)
        found = model.fit(**data, validation_data=validation, epochs=EPOCHS, verbose=0)
        sample.accuracy = max(found.history["val_accuracy"])

    def one_pass(sample: Sample, repeat: int) -> None:
        model, _ = plain_keras.model_of(subject)
        for part in theirs_of.values():
            model.predict(plain_keras.held_out(part, BATCH), verbose=0)

    gains = subject.joined.backbone.modality == "text" and devices.fast_math(DeviceSpec(fast_math=True))
    also = {"bfloat16": in_bfloat16} if gains else {}
    quickly = in_turn({"ours": ours, **also, "alone": cache_alone, "predict": one_pass}, repeats)
    slowly = in_turn({"theirs": theirs}, 1)
    fit = "frozen backbone inside fit"
    passes = slowly["theirs"][0].seconds / statistics.median(sample.seconds for sample in quickly["predict"])
    note = (
        f"{subject.counts()}; fit took {passes:.1f} times one predict pass: the ceiling of a pass no faster than that"
    )
    yield Row(f"head phase, {EPOCHS} epochs, {name}", fit, "15", quickly["ours"], slowly["theirs"], note)
    yield Row(f"the same, {name}, everything but the cache off", fit, "", quickly["alone"], slowly["theirs"])
    against = "one predict pass over the data"
    yield Row(f"the whole phase, {name}", against, "0.87 (1 / 1.15)", quickly["ours"], quickly["predict"])
    if gains:
        yield Row(
            f"head phase, {EPOCHS} epochs, {name}, features in bfloat16",
            fit,
            "15",
            quickly["bfloat16"],
            slowly["theirs"],
        )


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["head_phase"]))

"""The head phase with K = 4 augmented views, against live augmentation inside `fit`: digits, EfficientNet-Lite0.

    python benchmarks/views.py [--quick]

The plain way draws the same augmentation from images that are in memory; ours decodes files.
"""

from __future__ import annotations

from collections.abc import Iterator

import plain_keras
import tensorflow as tf
from measuring import Row, Sample, in_turn
from subjects import AS_PLAIN, BATCH, SILENT, digits, empty_cache, in_memory

from keras_transfer import caching, phases
from keras_transfer.recipe import Phase, override
from keras_transfer.training_loop import Watch

EPOCHS, RATE, IMAGES = 20, 1e-3, 2_000


def measure(quick: bool, chosen: str = "") -> Iterator[Row]:
    """One row."""
    # Crops alone: a digit that is turned over is another sign.
    fields = {"data.augment": "crop:0.1", "data.limit": 300 if quick else IMAGES, "data.validation_share": 0.1}
    subject = digits(quick, **fields)
    head = Phase(epochs=EPOCHS, learning_rate=RATE, solver="gradient", **AS_PLAIN)
    recipe = override(subject.recipe, {"head": head, "cache": "features", "fine_tune.epochs": 0})
    decoded = {split: in_memory(subject.examples[split]) for split in ("train", "validation")}
    validation = plain_keras.held_out(decoded["validation"], BATCH)

    def ours(sample: Sample, repeat: int) -> None:
        subject.reset(repeat)
        seeded = override(recipe, {"seed": repeat})
        with empty_cache():
            cached = caching.head_examples(
                caching.encode_of(subject.joined.encoder, seeded), subject.examples, seeded, SILENT
            )
            assert cached is not None
            history = phases.train_head(
                subject.joined.head,
                subject.found.task,
                subject.found.labels,
                seeded,
                cached["train"],
                (cached["validation"], subject.validation[1]),
                subject.loss,
                tf.distribute.get_strategy(),
                Watch(),
            )
            del cached
        sample.accuracy = history.best["val_accuracy"]

    def theirs(sample: Sample, repeat: int) -> None:
        subject.reset(repeat)
        model, _ = plain_keras.model_of(subject)
        plain_keras.compiled(model, RATE)
        data = plain_keras.training(decoded["train"], BATCH, repeat)
        found = model.fit(**data, validation_data=validation, epochs=EPOCHS, verbose=0)
        sample.accuracy = max(found.history["val_accuracy"])

    found = in_turn({"theirs": theirs, "ours": ours}, 1)
    goal = f"{0.9 * EPOCHS / caching.VIEWS:.1f} (0.9 of epochs / K)"
    what = f"head phase, {EPOCHS} epochs, K = {caching.VIEWS} augmented views, digits"
    yield Row(what, "live augmentation inside fit", goal, found["ours"], found["theirs"], subject.counts())


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["views"]))

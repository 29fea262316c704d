"""The head phase on cached features, against a frozen backbone inside `fit`: digits, EfficientNet-Lite0, 96 px.

    python benchmarks/head_phase.py [--quick]

Real digits and weights, all from raw files to a trained head.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import tensorflow as tf
from digits import arrays, batches, compiled, digits, plain_keras
from measuring import Row, Sample, in_turn

from keras_transfer import feature_cache, phases
from keras_transfer.feature_cache import CachedExamples
from keras_transfer.recipe import Phase, override
from keras_transfer.training_loop import Watch

EPOCHS = 20


def measure(quick: bool) -> list[Row]:
    """The whole phase, from raw images to a trained head; and the same against one `predict` pass."""
    repeats = 1 if quick else 5
    data = digits(limit=300, data__validation_share=0.02, data__test_share=0.02) if quick else digits()
    train, held_out = arrays(data.examples["train"]), arrays(data.examples["validation"])
    test = data.examples["test"]
    recipe = override(data.recipe, {"head": Phase(epochs=EPOCHS, learning_rate=1e-3, solver="gradient")})
    start = data.joined.head.get_weights()

    def ours(sample: Sample) -> None:
        data.joined.head.set_weights(start)
        with tempfile.TemporaryDirectory() as folder:
            cached = {
                name: CachedExamples(
                    feature_cache.compute(data.joined.encoder, data.examples[name], directory=Path(folder)),
                    data.examples[name],
                )
                for name in ("train", "validation")
            }
            history = phases.train_head(
                data.joined.head,
                data.found.task,
                data.found.labels,
                recipe,
                cached["train"],
                (cached["validation"], data.validation[1]),
                data.loss,
                tf.distribute.get_strategy(),
                Watch(),
            )
        sample.accuracy = history.best["val_accuracy"]

    def theirs(sample: Sample) -> None:
        model, _ = plain_keras(data)
        compiled(model, 1e-3)
        found = model.fit(batches(*train, True), validation_data=batches(*held_out, False), epochs=EPOCHS, verbose=0)
        sample.accuracy = max(found.history["val_accuracy"])

    def one_pass(sample: Sample) -> None:
        model, _ = plain_keras(data)
        for part in (train, held_out):
            model.predict(part[0], batch_size=BATCH_OF_PREDICT, verbose=0)

    count = len(train[1]) + len(held_out[1])
    note = f"{count:,} images; {len(test):,} test images are not used"
    rows = [
        in_turn(
            Row(f"head phase, {EPOCHS} epochs, digits", "frozen backbone inside fit", "15", note=note),
            ours,
            theirs,
            repeats,
        )
    ]
    against = Row("the same phase", "one predict pass over the data", "0.87 (1 / 1.15)")
    return [*rows, in_turn(against, ours, one_pass, repeats)]


BATCH_OF_PREDICT = 32

if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["head_phase"]))

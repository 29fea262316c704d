"""The whole demo recipe, against the Keras guide's two phases as it gives them: trees, EfficientNet-Lite0, 96 px.

    python benchmarks/whole_run.py [--quick]

The guide: flips and rotations, dropout 0.2, 20 epochs of the head, then all layers for 10 epochs at 1e-5. Our time has
reading and checking the files, both phases and the scores of all splits in it; the plain way's images are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import plain_keras
from measuring import Row, Sample, in_turn
from subjects import BATCH, SILENT, empty_cache, in_memory, trees

import keras_transfer
from keras_transfer.recipe_file import load_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "trees_efficientnet_lite.py"
HEAD_EPOCHS, TUNE_EPOCHS, HEAD_RATE, TUNE_RATE, DROPOUT = 20, 10, 1e-3, 1e-5, 0.2


def measure(quick: bool, chosen: str = "") -> Iterator[Row]:
    """One row a test split."""
    subject = trees(quick, **{"data.augment": "none"})
    splits = [name for name in subject.examples if name.startswith("test")]
    decoded = {name: in_memory(part) for name, part in subject.examples.items()}
    validation = plain_keras.held_out(decoded["validation"], BATCH)

    def ours(sample: Sample, repeat: int) -> None:
        with empty_cache(), TemporaryDirectory() as folder:
            overrides = {"export.enabled": False, "runs_directory": folder, "seed": repeat}
            small = {"data.limit": 300, "fine_tune.epochs": 2} if quick else {}
            run = keras_transfer.fit(load_recipe(RECIPE), log=SILENT, **overrides, **small)
            sample.parts = {name: run.metrics_by_split[name]["accuracy"] for name in splits}

    def theirs(sample: Sample, repeat: int) -> None:
        subject.reset(repeat)
        inner, base = plain_keras.model_of(subject, DROPOUT)
        inputs = keras.Input(inner.input.shape[1:])
        x = keras.layers.RandomFlip("horizontal")(inputs)
        model = keras.Model(inputs, inner(keras.layers.RandomRotation(0.1)(x)))
        data = plain_keras.training(decoded["train"], BATCH, repeat)
        phases = ((HEAD_EPOCHS, HEAD_RATE), (TUNE_EPOCHS, TUNE_RATE))
        for number, (epochs, rate) in enumerate(phases):
            if number:
                plain_keras.unfreeze(base)
            plain_keras.compiled(model, rate)
            model.fit(**data, validation_data=validation, epochs=2 if quick else epochs, verbose=0)
        tests = {name: plain_keras.held_out(decoded[name], BATCH) for name in splits}
        sample.parts = {name: plain_keras.accuracy(model, dataset) for name, dataset in tests.items()}

    found = in_turn({"theirs": theirs, "ours": ours}, 1 if quick else 3)
    against = f"the Keras guide's two phases, {HEAD_EPOCHS} and {TUNE_EPOCHS} epochs, BatchNorm frozen by hand"
    for name in splits:
        scored = {
            way: [replace(sample, accuracy=sample.parts[name]) for sample in samples] for way, samples in found.items()
        }
        what = f"the whole demo recipe, both phases, trees ({name})"
        yield Row(what, against, "4", scored["ours"], scored["theirs"], subject.counts())


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["whole_run"]))

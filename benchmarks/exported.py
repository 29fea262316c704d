"""Exported versions with folded constants, against `model.export`: batches of 1 and 16.

    python benchmarks/exported.py [--quick]

Random weights with the statistics of trained ones.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from measuring import Row, Sample

from keras_transfer.folding import numeric_part

NETWORKS = {
    "ResNet50": (keras.applications.ResNet50, 224),
    "EfficientNetB0": (keras.applications.EfficientNetB0, 224),
    "InceptionV3": (keras.applications.InceptionV3, 299),
}


def measure(quick: bool, chosen: str = "") -> list[Row]:
    """One row a network and batch; the last is the geometric mean."""
    rows = []
    for name, (build, size) in NETWORKS.items():
        if quick and name != "EfficientNetB0":
            continue
        with tempfile.TemporaryDirectory() as folder:
            loaded = _versions(build, size, Path(folder))
            rows += [_row(name, size, batch, loaded, quick) for batch in (1, 16)]
    # Of the medians of each row.
    logs = [math.log(_median(row.theirs) / _median(row.ours)) for row in rows]
    mean = math.exp(statistics.mean(logs))
    rows[-1].note = f"geometric mean of the rows: {mean:.2f}. {rows[-1].note}"
    return rows


def _median(samples: list[Sample]) -> float:
    return statistics.median(sample.seconds for sample in samples)


def _versions(build: Any, size: int, folder: Path) -> dict[str, tuple[Any, Any]]:
    """Both exports of one network, loaded again."""
    keras.utils.set_random_seed(0)
    model = _with_statistics(build(weights=None))
    model.export(str(folder / "theirs"), verbose=False)
    numeric, module = numeric_part(model), tf.Module()
    assert numeric.folded
    spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="pixels")
    answer = tf.function(lambda pixels: {"outputs": numeric.call(pixels)}, input_signature=[spec])
    # As `export` does: an answer needs no gradients, and those of constants cannot be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder / "ours"), signatures={"serving_default": answer}, options=options)
    found = {}
    for kind in ("theirs", "ours"):
        whole = tf.saved_model.load(str(folder / kind))
        found[kind] = (whole, whole.signatures["serving_default"])
    return found


def _with_statistics(model: keras.Model) -> keras.Model:
    """Random weights with the statistics of trained ones: of zeros and ones some steps would cost nothing."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif "gamma" in weight.path:
            weight.assign(rng.uniform(0.5, 1.2, weight.shape))
        elif "beta" in weight.path or "moving_mean" in weight.path:
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def _row(name: str, size: int, batch: int, loaded: dict[str, tuple[Any, Any]], quick: bool) -> Row:
    row = Row(f"export of {name}, batch {batch}", "model.export", "1.15 (mean)")
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype("float32"))
    outputs = {}
    calls = {}
    for kind, (_, signature) in loaded.items():
        argument = next(iter(signature.structured_input_signature[1]))

        def call(signature: Any = signature, argument: str = argument) -> Any:
            return next(iter(signature(**{argument: pixels}).values())).numpy()

        calls[kind] = call
        for _ in range(2):
            outputs[kind] = call()
    for _ in range(3 if quick else (24 if batch == 1 else 8)):
        for kind, samples in (("theirs", row.theirs), ("ours", row.ours)):
            wall, cpu = time.perf_counter(), time.process_time()
            calls[kind]()
            samples.append(Sample(time.perf_counter() - wall, time.process_time() - cpu))
    row.note = f"largest difference of outputs {np.abs(outputs['ours'] - outputs['theirs']).max():.1e}"
    return row


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["exported"]))

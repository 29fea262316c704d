"""Trains a caller's own model on N logical CPU devices and writes losses and weights; run by test_own_model.py."""

from __future__ import annotations

import contextlib
import sys

import keras
import numpy as np
import tensorflow as tf


def main(count: int, out: str) -> None:
    """Both phases with `freeze`, `run_phase` and `unfreeze`, under the scope of a MirroredStrategy where N is 2."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    from keras_transfer import Phase, freeze, run_phase, unfreeze

    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 255, (22, 16, 16, 3)).astype("float32"), random.integers(0, 2, 22)
    x[y == 1, :, :8] += 100
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)  # the last batch holds six
    with strategy.scope() if count > 1 else contextlib.nullcontext():
        keras.utils.set_random_seed(5)
        inputs = keras.Input((16, 16, 3))
        h = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
        h = keras.layers.Conv2D(4, 3, 2, activation="relu", name="lower")(h)
        h = keras.layers.BatchNormalization(name="norm")(h)
        h = keras.layers.Conv2D(4, 3, 2, activation="relu", name="upper")(h)
        outputs = keras.layers.Dense(2, name="logits")(keras.layers.GlobalAveragePooling2D()(h))
        model = keras.Model(inputs, outputs)
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        rows = []
        freeze(model)
        head = Phase(epochs=2, learning_rate=1e-2, clip_norm=0.05)
        rows += run_phase(model, train, train, head, metrics=["accuracy"]).epochs
        unfreeze(model, "layers:upper")
        tune = Phase(epochs=2, learning_rate=1e-3, clip_norm=0.05)
        rows += run_phase(model, train, train, tune, metrics=["accuracy"]).epochs
    numbers = [row[key] for row in rows for key in ("loss", "val_loss", "val_accuracy") if key in row]
    np.savez(out, numbers=np.array(numbers), **{f"w{n}": value for n, value in enumerate(model.get_weights())})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

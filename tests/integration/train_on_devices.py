"""Trains both phases on N logical CPU devices and writes the losses and weights; run by test_two_devices.py."""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf


def main(count: int, photos: str, out: str) -> None:
    """Head by gradient on live augmented photos, then fine-tuning of all blocks, with clipping."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    from keras_transfer import fit
    from keras_transfer.progress import Log

    run = fit(
        photos,
        log=Log(quiet=True),
        seed=3,
        cache="off",
        data={"augment": "flip,crop:0.3,color:0.2,mixup:0.2", "batch_size": 10},
        backbone={"name": "mobilenet", "weights": "none", "image_size": 32},
        head={"epochs": 2, "solver": "gradient", "learning_rate": 1e-2},
        fine_tune={"epochs": 2, "trainable": "last:2", "learning_rate": 1e-3, "clip_norm": 0.01},
        devices={"strategy": "mirrored" if count > 1 else "one"},
        export={"enabled": False},
    )
    rows = run.history()
    losses = [row[key] for row in rows for key in ("loss", "val_loss") if key in row]
    weights = {f"w{number}": np.asarray(value) for number, value in enumerate(run.model.get_weights())}
    np.savez(out, losses=np.array(losses), **weights)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])

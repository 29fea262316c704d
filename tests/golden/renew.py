"""Golden values: a few outputs under a fixed seed, kept in `values.json`, so that a change of results is seen.

    python tests/golden/renew.py

writes them anew. Do so only where results were meant to change, and say in the commit why.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

VALUES = Path(__file__).parent / "values.json"
SIZE = 48


def compute() -> dict[str, Any]:
    """Every golden value, as plain JSON."""
    return {
        "image": _image(),
        "augmentation": _augmentation(),
        "exact_head": _exact_head(),
        "order_of_examples": _order(),
        "phase": _phase(),
    }


def _photo(height: int, width: int) -> Any:
    """A smooth made photo, uint8 [height, width, 3], the same on any machine."""
    import numpy as np

    down, across = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [128 + 100 * np.sin(across / (7 + 3 * c) + down / (11 - 2 * c)) for c in range(3)]
    return np.stack(waves, -1).round().astype(np.uint8)


def _image() -> dict[str, list[float]]:
    """Decoding and resizing of one PNG photo."""
    import tensorflow as tf

    from keras_transfer.vision import images

    data = tf.io.encode_png(_photo(120, 200))
    return {how: _some(images.load(data, SIZE, how)) for how in ("crop", "pad", "stretch")}


def _augmentation() -> dict[str, list[float]]:
    """What each strength makes of one photo."""
    import tensorflow as tf

    from keras_transfer.vision.augmentation import Augmentation

    photo = tf.constant(_photo(SIZE, SIZE), tf.float32)
    seed = tf.constant([7, 1])
    return {name: _some(Augmentation.parse(name).one(photo, seed)) for name in ("light", "medium", "strong")}


def _exact_head() -> list[float]:
    """The exactly solved head on made features."""
    import numpy as np

    from keras_transfer import solvers

    features = np.sin(np.arange(40 * 6, dtype=np.float64) ** 1.5).reshape(40, 6).astype(np.float32)
    targets = (features[:, 0] + 0.3 * features[:, 1] > 0).astype(np.int32)
    found = solvers.solve(features, targets, problem="softmax", classes=2, seed=0)
    return [float(found.strength), *_some(found.kernel), *_some(found.bias)]


def _order() -> list[int]:
    """The order of a shuffled epoch."""
    from keras_transfer.data.pipeline import plan_epoch

    return [int(index) for plan in plan_epoch(10, 4, shuffle_seed=(3, 1)) for index in plan.index]


def _phase() -> list[float]:
    """The losses of one small phase."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_transfer.own_model import run_phase
    from keras_transfer.recipe import Phase

    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="ones", name="logits")(inputs))
    x = np.cos(np.arange(36, dtype=np.float64) ** 1.3).reshape(12, 3).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int32)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    phase = Phase(epochs=3, learning_rate=0.05, weight_decay=0.1, clip_norm=0.5)
    rows = run_phase(model, batches, batches, phase, loss=loss).epochs
    return [row[key] for row in rows for key in ("loss", "val_loss") if key in row]


def _some(values: Any) -> list[float]:
    """Five of the values and their mean: enough to see a change."""
    import numpy as np

    flat = np.asarray(values, np.float64).ravel()
    picked = flat[np.linspace(0, len(flat) - 1, 5).astype(int)]
    return [round(float(value), 5) for value in (*picked, flat.mean())]


if __name__ == "__main__":
    VALUES.write_text(json.dumps(compute(), indent=1) + "\n")
    print(f"wrote {VALUES}")

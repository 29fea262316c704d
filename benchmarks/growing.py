"""How memory and time grow when the data grow 1, 4 and 16 times: the cached head phase, a fresh process each.

    python benchmarks/growing.py [--quick]

Made images, so that no disk of photos is needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from measuring import table

FACTORS = (1, 4, 16)
IMAGES, EPOCHS, SIZE, FEATURES = 1_000, 5, 32, 512


def report(quick: bool) -> str:
    """One row a factor."""
    images = 200 if quick else IMAGES
    rows = []
    first = 0.0
    for factor in FACTORS:
        done = subprocess.run(
            [sys.executable, __file__, "--images", str(images * factor)], check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["megabytes"]
        rows.append(
            [
                f"{factor}x: {images * factor:,} images",
                f"{found['cache_megabytes']:.0f} MB",
                f"{found['megabytes']:.0f} MB",
                f"{found['megabytes'] - first:+.0f} MB",
                f"{found['pass_seconds']:.1f} s",
                f"{found['head_seconds']:.1f} s",
            ]
        )
    header = ["data", "features on disk", "peak RssAnon", "more than 1x (goal < 200 MB)", "pass", f"{EPOCHS} epochs"]
    return table(header, rows)


def one(images: int) -> None:
    """A pass over made images, and the head's epochs; prints JSON."""
    import tempfile

    import keras
    import numpy as np
    import tensorflow as tf
    from measuring import anonymous_megabytes, measured

    from keras_transfer import feature_cache
    from keras_transfer.data.pipeline import training_batches
    from keras_transfer.feature_cache import CachedExamples
    from keras_transfer.recipe import Phase
    from keras_transfer.tasks.base import Examples
    from keras_transfer.training_loop import train_phase

    inputs = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = keras.layers.Conv2D(FEATURES, 8, 8, activation="relu")(inputs)
    encoder = keras.Model(inputs, keras.layers.Flatten()(x))
    features = keras.Input(encoder.output.shape[1:])
    head = keras.Model(features, keras.layers.Dense(10)(features))

    def load(index):  # type: ignore[no-untyped-def]
        seed = tf.stack([tf.cast(index, tf.int32), 0])
        return {"pixels": tf.random.stateless_uniform((SIZE, SIZE, 3), seed)}, {"label": tf.cast(index % 10, tf.int32)}

    labels = np.arange(images, dtype=np.int32) % 10
    examples = Examples(
        ids=[str(n) for n in range(images)],
        load=load,
        meta=[{}] * images,
        targets={"label": labels},
        key=f"made {images}",
    )
    found: dict[str, float] = {}
    base = anonymous_megabytes()

    def loss(targets, outputs):  # type: ignore[no-untyped-def]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets["label"], outputs)

    with tempfile.TemporaryDirectory() as folder:
        caches = []
        first = measured(
            lambda sample, repeat: caches.append(feature_cache.compute(encoder, examples, directory=Path(folder)))
        )
        cached = CachedExamples(caches[0], examples)
        second = measured(
            lambda sample, repeat: train_phase(
                head, training_batches(cached, 32, 0), None, Phase(epochs=EPOCHS, learning_rate=1e-3), loss
            )
        )
        found = {
            "megabytes": base + max(first.megabytes, anonymous_megabytes() - base + second.megabytes),
            "pass_seconds": first.seconds,
            "head_seconds": second.seconds,
            "cache_megabytes": caches[0].bytes / 1e6,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    if "--images" in sys.argv:
        one(int(sys.argv[sys.argv.index("--images") + 1]))
    else:
        from run import main

        raise SystemExit(main(["growing"]))

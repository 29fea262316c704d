"""The demo: one recipe on real photos and weights, against two baselines, and an answer from its export.

    python benchmarks/demo.py --seeds 3

Trains `recipes/trees_efficientnet_lite.py` for each seed; beside it the majority class and the same network from
random weights, on the same photos and for three times as many epochs. Ends with a prediction by plain TensorFlow in a
fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import keras_transfer
from keras_transfer import silence
from keras_transfer.recipe import Recipe, override
from keras_transfer.recipe_file import load_recipe
from keras_transfer.samples import data_folder

RECIPE = Path(__file__).parent.parent / "recipes" / "trees_efficientnet_lite.py"
SPLITS = ("test", "test_shifted")

PLAIN_TENSORFLOW = """
import sys, json
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
answer = loaded.signatures["serving_default"](image_bytes=tf.constant([tf.io.read_file(sys.argv[2]).numpy()]))
print(json.dumps({"label": answer["label"].numpy()[0].decode(), "probability": float(answer["probability"][0])}))
"""


def main() -> int:
    """Trains, compares, predicts."""
    parser = argparse.ArgumentParser(description="Train the trees recipe beside two baselines.")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds; the range needs three")
    options = parser.parse_args()
    # As the command does: TensorFlow's notes at its import are not for a person.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    silence.import_tensorflow()
    recipe = load_recipe(RECIPE)
    folder = data_folder("trees")
    rows: dict[str, list[dict[str, float]]] = {"majority class": [_majority(folder)]}
    seconds = []
    run: Any = None
    for seed in range(options.seeds):
        run = keras_transfer.fit(recipe, seed=seed)
        seconds.append(run.seconds["total"])
        rows.setdefault("two phases, ImageNet weights", []).append(_accuracies(run))
    for seed in range(options.seeds):
        scratch = keras_transfer.fit(_from_scratch(recipe), seed=seed)
        rows.setdefault("the same network from random weights", []).append(_accuracies(scratch))
    print(f"\n{'accuracy':<40}{'test':>26}{'test_shifted (second photo)':>32}")
    for name, found in rows.items():
        print(f"{name:<40}{_range(found, 'test'):>26}{_range(found, 'test_shifted'):>32}")
    print(f"\none training: {statistics.mean(seconds):.0f} s in the mean of {options.seeds} seed(s)")
    crop = sorted((folder / "test" / "tree").iterdir())[0]
    print(f"\nplain TensorFlow, fresh process, {crop.name}: {_predict(run.saved_model, crop)}")
    print(
        f"\nexported: {run.saved_model} (point TF Serving at {Path(run.saved_model).parent})"
        f"\nrun:      {run.path} (recipe, history, scores)"
        f"\nnext:     keras-transfer predict {run.saved_model} YOUR_PHOTO.jpg"
        "\n          keras-transfer fit YOUR_PHOTOS/    (one folder a class)"
    )
    return 0


def _majority(folder: Path) -> dict[str, float]:
    """The accuracy of always answering the most frequent class of the training photos."""
    counts = {split: Counter(path.parent.name for path in (folder / split).glob("*/*")) for split in ("train", *SPLITS)}
    answer = counts["train"].most_common(1)[0][0]
    return {split: counts[split][answer] / counts[split].total() for split in SPLITS}


def _from_scratch(recipe: Recipe) -> Recipe:
    """The same network without pretrained weights: nothing frozen helps, so all layers train from the start, longer."""
    return override(
        recipe,
        {
            "name": f"{recipe.name}_from_scratch",
            "backbone.weights": "none",
            "head.epochs": 0,
            "fine_tune": {"epochs": 10, "trainable": "all", "learning_rate": 1e-3, "batchnorm": "train"},
            "export.enabled": False,
        },
    )


def _accuracies(run: Any) -> dict[str, float]:
    return {split: run.metrics_by_split[split]["accuracy"] for split in SPLITS}


def _range(found: list[dict[str, float]], split: str) -> str:
    """Mean and range over seeds."""
    values = [row[split] for row in found]
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _predict(version: Path, photo: Path) -> dict[str, Any]:
    """One answer by a process that knows nothing of this package."""
    started = time.monotonic()
    command = [sys.executable, "-c", PLAIN_TENSORFLOW, str(version), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    raise SystemExit(main())

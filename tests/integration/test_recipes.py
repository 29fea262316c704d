"""The recipes on TensorFlow Datasets names, offline, through the real command.

The data is a tiny valid set with the real one's name, version, features and splits, prepared under TFDS_DATA_DIR; the
weights are random and the images small, by overrides that any user may give.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_tfds

RECIPES = Path(__file__).parents[2] / "recipes"

OFFLINE = {
    "flowers_vgg16": ("tf_flowers", 32, 5),
    "pets_resnet50": ("oxford_iiit_pet", 32, 37),
    "cats_vs_dogs_inception_v3": ("cats_vs_dogs", 75, 2),
}
"""By recipe: the data set, the smallest image that the network takes, the number of classes."""


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "TFDS_DATA_DIR": str(folder / "tfds")}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_a_recipe_trains_and_publishes_offline(name: str, tmp_path):
    data, size, classes = OFFLINE[name]
    tiny_tfds.write_tiny(tmp_path / "tfds", data)
    command = ["fit", str(RECIPES / f"{name}.py"), "--json", "--backbone.weights", "none"]
    small = ["--backbone.image_size", str(size), "--fine_tune.epochs", "1", "--data.batch_size", "16"]
    done = run([sys.executable, "-m", "keras_transfer", *command, *small], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["task"] == "image_classification"
    assert result["trainable"]["head"] and result["trainable"]["fine_tune"] > result["trainable"]["head"]
    assert 0 <= result["metrics"]["accuracy"] <= 1
    version = tmp_path / result["saved_model"]
    assert version == tmp_path / "saved_models" / name / "1"
    assert len((version / "assets.extra" / "labels.txt").read_text().splitlines()) == classes
    assert (tmp_path / result["run"] / "history.jsonl").exists()


@pytest.mark.parametrize("name", OFFLINE)
def test_a_recipe_says_its_command_and_what_is_not_measured(name: str):
    text = (RECIPES / f"{name}.py").read_text()
    assert f"python recipes/{name}.py" in text and f"keras-transfer fit recipes/{name}.py" in text
    assert "not measured here: needs the internet" in text


def test_a_recipe_file_runs_as_a_script(tmp_path):
    tiny_tfds.write_tiny(tmp_path / "tfds", "tf_flowers")
    words = ["--dry-run", "--json", "--backbone.image_size", "32"]
    done = run([sys.executable, str(RECIPES / "flowers_vgg16.py"), *words], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    plan = json.loads(done.stdout.splitlines()[-1])
    assert plan["minutes"] > 0 and any("from:block5" in line for line in plan["plan"])
    assert not (tmp_path / "runs").exists() and not (tmp_path / "saved_models").exists()

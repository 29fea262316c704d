"""The recipes of boxes and masks on TensorFlow Datasets names, offline, through the real command.

As in `test_recipes.py`: tiny valid sets under TFDS_DATA_DIR, random weights and small images, by overrides that any
user may give.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny_tfds
from test_recipes import RECIPES, run

OFFLINE = {
    "voc_detection_resnet50": ("voc/2007", 64, 20, "ap50"),
    "voc_detection_vgg16": ("voc/2007", 64, 20, "ap50"),
    "coco_detection_inception_v3": ("coco/2017", 96, 80, "ap50"),
    "pets_segmentation_vgg16": ("oxford_iiit_pet", 64, 3, "mean_iou"),
    "pets_segmentation_resnet50": ("oxford_iiit_pet", 64, 3, "mean_iou"),
    "pets_segmentation_inception_v3": ("oxford_iiit_pet", 96, 3, "mean_iou"),
}
"""By recipe: the data set, the side of the images, the number of classes, the main metric."""


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_a_recipe_trains_and_publishes_offline(name: str, tmp_path: Path):
    data, size, classes, metric = OFFLINE[name]
    tiny_tfds.write_tiny(tmp_path / "tfds", data)
    words = [
        sys.executable,
        "-m",
        "keras_transfer",
        "fit",
        str(RECIPES / f"{name}.py"),
        "--json",
        "--backbone.weights",
        "none",
    ]
    small = ["--backbone.image_size", str(size), "--head.epochs", "1", "--fine_tune.epochs", "1"]
    done = run([*words, *small, "--data.batch_size", "8"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["trainable"]["fine_tune"] > result["trainable"]["head"] > 0
    assert 0 <= result["metrics"][metric] <= 1
    version = tmp_path / result["saved_model"]
    assert version == tmp_path / "saved_models" / name / "1"
    assert len((version / "assets.extra" / "labels.txt").read_text().splitlines()) == classes


@pytest.mark.parametrize("name", OFFLINE)
def test_a_recipe_says_its_command_and_what_is_not_measured(name: str):
    text = (RECIPES / f"{name}.py").read_text()
    assert f"python recipes/{name}.py" in text and f"keras-transfer fit recipes/{name}.py" in text
    assert "not measured here: needs the internet" in text

"""VGG16, ResNet50 and InceptionV3, each for classes, boxes and masks: two phases, scores, export, parity.

Through the real command, on tiny made data, with random weights and small inputs. The fast test is one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cli_runs
import numpy as np
import pytest
from conftest import write_photo_folder
from tiny_scenes import write_masks, write_voc

from keras_transfer import prediction, run_record

SIZES = {"vgg16": 64, "resnet50": 64, "inception_v3": 96}
"""Side of the square that each takes here: the smallest whose coarsest map has more than one cell."""


def class_data(folder: Path) -> tuple[Path, list[Path]]:
    write_photo_folder(folder / "data", count=10)
    return folder / "data", sorted((folder / "data" / "red").iterdir())[:3]


def box_data(folder: Path) -> tuple[Path, list[Path]]:
    for seed, (split, count) in enumerate({"train": 8, "validation": 3, "test": 3}.items()):
        write_voc(folder / "data" / split, count, seed)
    return folder / "data", sorted((folder / "data" / "test").glob("*.png"))


def mask_data(folder: Path) -> tuple[Path, list[Path]]:
    for seed, (split, count) in enumerate({"train": 8, "validation": 3, "test": 3}.items()):
        write_masks(folder / "data" / split, count, seed)
    return folder / "data", sorted((folder / "data" / "test" / "images").glob("*.png"))


DATA: dict[str, Callable[[Path], tuple[Path, list[Path]]]] = {
    "image_classification": class_data,
    "object_detection": box_data,
    "semantic_segmentation": mask_data,
}
METRICS = {"image_classification": "accuracy", "object_detection": "ap50", "semantic_segmentation": "mean_iou"}
FAST = ("vgg16", "image_classification")

NINE = [
    pytest.param(backbone, task, marks=[] if (backbone, task) == FAST else [pytest.mark.slow])
    for backbone in SIZES
    for task in DATA
]


@pytest.mark.parametrize(("backbone", "task"), NINE)
def test_it_trains_in_two_phases_scores_exports_and_serves(backbone: str, task: str, tmp_path: Path):
    data, pictures = DATA[task](tmp_path)
    network = ["--backbone.name", backbone, "--backbone.weights", "none", "--backbone.image_size", str(SIZES[backbone])]
    phases = ["--head.epochs", "1", "--head.solver", "gradient", "--fine_tune.epochs", "1"]
    small = ["--fine_tune.trainable", "last:2", "--data.batch_size", "4"]
    fitted = cli_runs.run_here(["fit", data, "--name", "nine", *network, *phases, *small, "--json"], tmp_path)
    assert fitted.status == 0, fitted.err[-3000:]
    result = fitted.json
    assert result["task"] == task and result["backbone"] == backbone
    assert result["trainable"]["fine_tune"] > result["trainable"]["head"] > 0
    assert 0 <= result["metrics"][METRICS[task]] <= 1
    version = tmp_path / result["saved_model"]
    assert version == tmp_path / "saved_models" / "nine" / "1"

    scored = cli_runs.run_here(["evaluate", version, data, "--json"], tmp_path)
    assert scored.status == 0, scored.err[-3000:]
    assert scored.json["metrics"][METRICS[task]] == pytest.approx(result["metrics"][METRICS[task]], abs=1e-3)

    drawn = ["--draw", tmp_path / "drawn"] if task != "image_classification" else []
    asked = cli_runs.run_here(["predict", version, *pictures, *drawn], tmp_path)
    assert asked.status == 0, asked.err[-3000:]
    rows = [json.loads(line) for line in asked.out.splitlines()]
    assert [row["input"] for row in rows] == [str(path) for path in pictures]
    assert len(list((tmp_path / "drawn").glob("*.png"))) == (len(pictures) if drawn else 0)

    run = run_record.load(tmp_path / result["run"])
    servables = [prediction.open_model(path) for path in (run.path, version)]
    request = {"image_bytes": np.array([path.read_bytes() for path in pictures], object)}
    live, served = (servable(request) for servable in servables)
    assert set(live) == set(served)
    for name, value in live.items():
        if value.dtype.kind == "f" and task != "object_detection":
            np.testing.assert_allclose(served[name], value, atol=1e-4, rtol=1e-4, err_msg=name)

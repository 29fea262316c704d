"""Segmentation through the commands, as a new user types them: from a folder of masks to a mask for a new picture."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_scenes
from cli_runs import Outcome, run_here, run_process
from PIL import Image

SMALL = ("--backbone.name", "vgg16", "--backbone.weights", "none", "--backbone.image_size", "64")
CLASSES = ("background", *tiny_scenes.CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `scenes/`: two splits of images and masks; and pictures of other sizes in `new/`."""
    folder = tmp_path_factory.mktemp("user")
    for split, count, seed in (("train", 12, 1), ("test", 4, 2)):
        tiny_scenes.write_masks(folder / "scenes" / split, count, seed)
    (folder / "scenes" / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    (folder / "new").mkdir()
    for number, (width, height) in enumerate([(97, 41), (40, 130)]):
        tiny_scenes.draw_scene(width, height, [9, number]).image.save(folder / "new" / f"{number}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Outcome:
    """`fit --json` with both phases, in a process of its own."""
    words = ["fit", "scenes", *SMALL, "--head.epochs", "2", "--fine_tune.epochs", "3", "--json"]
    done = run_process([*words, "--fine_tune.trainable", "last:1"], folder)
    assert done.status == 0, done.err
    return done


def masks_in(rows: list[dict]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(row["mask"])))) for row in rows]


def test_a_folder_of_masks_is_trained_scored_and_published(fitted, folder):
    found = fitted.json
    assert found["task"] == "semantic_segmentation"
    assert 0 < found["trainable"]["head"] < found["trainable"]["fine_tune"]
    metrics = found["metrics"]
    assert set(metrics) >= {
        *("mean_iou", "iou_by_class", "mean_dice", "dice_by_class", "boundary_f1", "pixel_accuracy", "intervals"),
    }
    assert set(metrics["iou_by_class"]) == set(CLASSES)
    # Plain colours are learned even from random weights; background everywhere would give 0.27.
    assert metrics["mean_iou"] > 0.5
    assert (folder / found["saved_model"]).samefile(folder / "saved_models/scenes/1")


def test_evaluate_scores_an_export_as_the_training_did(fitted, folder):
    done = run_here(["evaluate", fitted.json["saved_model"], "scenes", "--json"], folder)
    assert done.status == 0, done.err
    assert (done.json["split"], done.json["examples"]) == ("test", 4)
    for name in ("mean_iou", "mean_dice", "boundary_f1", "pixel_accuracy"):
        assert done.json["metrics"][name] == pytest.approx(fitted.json["metrics"][name], abs=5e-3)


def test_predict_answers_with_a_mask_of_the_pictures_size_and_draws_it(fitted, folder):
    (folder / "notes.png").write_text("no picture")
    words = ["new", "notes.png", "--draw", "drawn"]
    rows_of = {}
    for model in (fitted.json["run"], fitted.json["saved_model"]):
        done = run_here(["predict", model, *words], folder)
        assert done.status == 1
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert [Path(row["input"]).name for row in rows] == ["0.jpg", "1.jpg", "notes.png"]
        assert "error" in rows[2] and "mask" not in rows[2]
        rows_of[model] = rows[:2]
    for row, mask, size in zip(rows, masks_in(rows[:2]), [(97, 41), (40, 130)], strict=False):
        assert (row["width"], row["height"]) == mask.shape[::-1] == size
        assert mask.max() < len(CLASSES)
        for number, name in enumerate(CLASSES):
            assert row["class_share"][name] == pytest.approx((mask == number).mean(), abs=1e-5)
        with Image.open(folder / row["drawn"]) as drawn:
            assert drawn.format == "PNG" and max(drawn.size) >= 512
    # The run and its export agree on all pixels but a few between two classes.
    one, two = (masks_in(rows) for rows in rows_of.values())
    assert all((a == b).mean() > 0.99 for a, b in zip(one, two, strict=True))


def test_other_data_with_classes_in_another_order_is_scored_by_name(fitted, folder):
    swapped = tiny_scenes.write_masks(folder / "swapped" / "test", 4, 2)
    table = np.zeros(256, np.uint8)
    table[[1, 2]] = 2, 1
    for path in (swapped / "masks").iterdir():
        Image.fromarray(table[np.asarray(Image.open(path))]).save(path)
    (swapped / "classes.txt").write_text("background\nsquare\ndisc\n", encoding="utf-8")
    done = run_here(["evaluate", fitted.json["saved_model"], "swapped", "--json"], folder)
    assert done.status == 0, done.err
    for name, value in fitted.json["metrics"]["iou_by_class"].items():
        assert done.json["metrics"]["iou_by_class"][name] == pytest.approx(value, abs=5e-3)


def test_a_model_is_refused_for_classes_that_it_does_not_know(fitted, folder):
    other = tiny_scenes.write_masks(folder / "other" / "test", 2, 3)
    (other / "classes.txt").write_text("background\ndisc\npentagon\n", encoding="utf-8")
    done = run_here(["evaluate", fitted.json["saved_model"], "other"], folder)
    assert done.status == 1 and "pentagon" in done.err and "Traceback" not in done.err


def test_what_masks_cannot_follow_is_refused_before_training(folder):
    for words, said in (
        (["--data.resize", "crop"], "data.resize: expected pad or stretch"),
        (["--data.augment", "mixup:0.2"], "data.augment: expected operations that a mask can follow"),
    ):
        done = run_here(["fit", "scenes", *SMALL, *words], folder)
        assert done.status == 1 and said in done.err and "Traceback" not in done.err

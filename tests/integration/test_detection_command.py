"""Object detection through the command: a folder of pictures with boxes in, a served detector and drawings out."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import cli_runs
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

Box = tuple[int, int, int, int]

FIT = (
    *("--backbone.name", "mobilenet", "--backbone.weights", "none", "--backbone.image_size", "64"),
    *("--data.batch_size", "8", "--data.augment", "flip", "--head.epochs", "1", "--fine_tune.epochs", "2"),
)


def picture(path: Path, seed: int, size: tuple[int, int] = (64, 80), count: int = 2) -> list[tuple[Box, str]]:
    """Writes a grey picture (height, width) with coloured squares, and gives their boxes and classes."""
    random = np.random.default_rng(seed)
    pixels, objects = random.integers(90, 150, (*size, 3), np.uint8), []
    for place in range(count):
        side = int(random.integers(14, 24))
        x = place * size[1] // count + int(random.integers(0, size[1] // count - side))
        y = int(random.integers(0, size[0] - side))
        label = ("blue", "red")[random.integers(2)]
        pixels[y : y + side, x : x + side] = (40, 60, 230) if label == "blue" else (230, 50, 40)
        objects.append(((x, y, x + side, y + side), label))
    Image.fromarray(pixels).save(path)
    return objects


def write_voc(path: Path, size: tuple[int, int], objects: Sequence[tuple[Box, str]]) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = path.with_suffix(".png").name
    sizes = ElementTree.SubElement(root, "size")
    for tag, number in zip(("width", "height", "depth"), (size[1], size[0], 3), strict=True):
        ElementTree.SubElement(sizes, tag).text = str(number)
    for (x1, y1, x2, y2), label in objects:
        one = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(one, "name").text = label
        box = ElementTree.SubElement(one, "bndbox")
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True):
            ElementTree.SubElement(box, tag).text = str(number)
    ElementTree.ElementTree(root).write(path)


def voc_folder(folder: Path, size: tuple[int, int] = (64, 80), **counts: int) -> Path:
    for number, (split, count) in enumerate(counts.items()):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            path = folder / split / f"{index}.png"
            write_voc(path.with_suffix(".xml"), size, picture(path, 1000 * number + index, size))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A run on a folder of VOC, made by the command."""
    folder = tmp_path_factory.mktemp("detection")
    voc_folder(folder / "squares", train=16, validation=6, test=6)
    done = cli_runs.run_here(["fit", "squares", *FIT, "--json"], folder)
    assert done.status == 0, done.err[-3000:]
    return folder, done.json


def test_a_folder_of_boxes_trains_in_two_phases_and_is_published(trained):
    folder, result = trained
    assert result["task"] == "object_detection"
    assert result["trainable"]["head"] and result["trainable"]["fine_tune"] > result["trainable"]["head"]
    assert {"ap", "ap50", "ap75", "ap_by_class", "precision", "recall", "f1", "threshold"} <= set(result["metrics"])
    assert set(result["metrics"]["ap_by_class"]) == {"blue", "red"}
    version = folder / result["saved_model"]
    assert (version / "assets.extra" / "labels.txt").read_text().split() == ["blue", "red"]
    recipe = json.loads((version / "assets.extra" / "recipe.json").read_text())
    assert recipe["data"]["resize"] == "pad" and recipe["options"]["tile_scale"] == 0


def test_the_published_version_answers_with_tensorflow_alone(trained):
    folder, result = trained
    loaded = tf.saved_model.load(str(folder / result["saved_model"]))
    answer = loaded.signatures["serving_default"](
        image_bytes=tf.constant([(folder / "squares" / "test" / "0.png").read_bytes()])
    )
    assert answer["boxes"].shape == (1, 500, 4) and answer["labels"].dtype == tf.string
    count = int(answer["count"][0])
    boxes = answer["boxes"].numpy()[0, :count]
    assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= 80).all() and (boxes[:, [1, 3]] <= 64).all()


def test_run_and_export_score_alike(trained):
    folder, result = trained
    scores = []
    for model in (result["run"], result["saved_model"]):
        done = cli_runs.run_here(["evaluate", model, "squares", "--json"], folder)
        assert done.status == 0, done.err[-2000:]
        scores.append(done.json["metrics"])
    assert done.json["split"] == "test" and done.json["examples"] == 6
    for name in ("ap", "ap50", "precision", "recall"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-3)
        assert scores[0][name] == pytest.approx(result["metrics"][name], abs=1e-3)


def test_predict_writes_boxes_and_drawings_and_goes_on_after_a_bad_file(trained):
    folder, result = trained
    (folder / "bad.png").write_bytes(b"no image")
    words = ["predict", result["saved_model"], "squares/test/0.png", "bad.png", "squares/test/1.png", "--draw", "drawn"]
    done = cli_runs.run_here(words, folder)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1 and [row["input"] for row in rows] == [
        "squares/test/0.png",
        "bad.png",
        "squares/test/1.png",
    ]
    assert "error" in rows[1]
    for row in (rows[0], rows[2]):
        assert len(row["boxes"]) == len(row["labels"]) == len(row["scores"])
        with Image.open(folder / row["drawn"]) as drawn:
            assert drawn.size == (80, 64)


@pytest.mark.slow
def test_a_table_of_boxes_of_large_photos_trains_in_tiles(tmp_path):
    rows = []
    for split in ("train", "validation", "test"):
        (tmp_path / "aerial" / split).mkdir(parents=True)
        name = f"{split}/photo.png"
        seed = len(rows)
        for box, label in picture(tmp_path / "aerial" / name, seed, (260, 520), count=16):
            rows.append((split, [name, *box, label]))
    for split in ("train", "validation", "test"):
        with open(tmp_path / "aerial" / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "x_min", "y_min", "x_max", "y_max", "label"])
            writer.writerows(row for of, row in rows if of == split)
    done = cli_runs.run_here(["fit", "aerial", *FIT, "--json"], tmp_path)
    assert done.status == 0, done.err[-3000:]
    assert "tiles of 64×64 pixels" in done.err
    found = cli_runs.run_here(["predict", done.json["saved_model"], "aerial/test/photo.png"], tmp_path)
    assert found.status == 0
    for x1, y1, x2, y2 in json.loads(found.out)["boxes"]:
        assert 0 <= x1 < x2 <= 520 and 0 <= y1 < y2 <= 260
    # The same scores in a process that reads the version again, as a server would.
    again = cli_runs.run_here(["evaluate", done.json["saved_model"], "aerial", "--json"], tmp_path)
    assert again.json["metrics"]["ap50"] == pytest.approx(done.json["metrics"]["ap50"], abs=2e-3)

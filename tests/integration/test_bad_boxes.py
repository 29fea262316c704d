"""Bad boxes and masks: `check` names each with file, line and mend and fails; `--data.bad_files skip` goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_runs import run_here
from conftest import draw_photo
from PIL import Image

WIDTH, HEIGHT, COUNT = 64, 48, 6
HEADER = "path,x_min,y_min,x_max,y_max,label\n"


def photos(folder: Path, count: int = COUNT) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        draw_photo(number % 3, 3, WIDTH, number).resize((WIDTH, HEIGHT)).save(path)
    return paths


def table(folder: Path, bad: str, count: int = COUNT) -> Path:
    """A box an image, alternately of two classes; the row on line 3 is replaced."""
    photos(folder, count)
    rows = [f"{number}.png,2,3,30,40,{'cat' if number % 2 else 'dog'}" for number in range(count)]
    if bad:
        rows[1] = bad
    (folder / "boxes.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return folder / "boxes.csv"


def outside(folder: Path) -> Path:
    return table(folder, "1.png,2,3,90,40,cat")


def without_area(folder: Path) -> Path:
    return table(folder, "1.png,2,3,2,40,cat")


def swapped(folder: Path) -> Path:
    return table(folder, "1.png,40,3,2,40,cat")


def no_number(folder: Path) -> Path:
    return table(folder, "1.png,2,3,nan,40,cat")


def missing_image(folder: Path) -> Path:
    return table(folder, "absent.png,2,3,30,40,cat")


def coco(folder: Path, change: Callable[[dict], object]) -> Path:
    photos(folder)
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(COUNT)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [2, 3, 28, 37]} for n in range(COUNT)
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    change(content)
    (folder / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def unknown_class(folder: Path) -> Path:
    return coco(folder, lambda content: content["annotations"][1].update(category_id=9))


def twice(folder: Path) -> Path:
    return coco(folder, lambda content: content["annotations"][1].update(id=0))


def resized(folder: Path) -> Path:
    return coco(folder, lambda content: content["images"][1].update(width=640, height=480))


def malformed_json(folder: Path) -> Path:
    data = coco(folder, lambda content: None)
    text = (data / "coco.json").read_text()
    (data / "coco.json").write_text(text.replace('"annotations": [', '"annotations": [,', 1))
    return data


def wrong_structure(folder: Path) -> Path:
    return coco(folder, lambda content: content.update(categories={"dog": 1}))


def voc(folder: Path, bad: str) -> Path:
    for number, path in enumerate(photos(folder)):
        box = "<xmin>2</xmin><ymin>3</ymin><xmax>30</xmax><ymax>40</ymax>"
        name = "cat" if number % 2 else "dog"
        text = f"<annotation>\n<object><name>{name}</name>\n<bndbox>{box}</bndbox></object>\n</annotation>"
        path.with_suffix(".xml").write_text(bad if number == 1 else text)
    return folder


def malformed_xml(folder: Path) -> Path:
    return voc(folder, "<annotation>\n<object>\n</annotation>")


def yolo_row(folder: Path) -> Path:
    photos(folder / "images")
    (folder / "labels").mkdir()
    for number in range(COUNT):
        row = "0 0.5 0.5 1.5 0.2" if number == 1 else f"{number % 2} 0.5 0.5 0.2 0.2"
        (folder / f"labels/{number}.txt").write_text(row + "\n")
    return folder


def masks(folder: Path, change: Callable[[np.ndarray], np.ndarray] | None) -> Path:
    photos(folder / "images")
    (folder / "masks").mkdir()
    (folder / "classes.txt").write_text("background\ncell\n")
    for number in range(COUNT):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[4:20, 4 : 20 + number] = 1
        if number == 1 and change is None:
            continue
        Image.fromarray(change(mask) if number == 1 and change else mask).save(folder / f"masks/{number}.png")
    return folder


def small_mask(folder: Path) -> Path:
    return masks(folder, lambda mask: mask[:-2])


def unknown_value(folder: Path) -> Path:
    return masks(folder, lambda mask: mask * 7)


def no_mask(folder: Path) -> Path:
    return masks(folder, None)


# How the data is made; the finding's kind; what its files or its message name; a word of the mend.
IMAGES_AT_FAULT: list[tuple[Callable[[Path], Path], str, str, str]] = [
    (outside, "box_outside_image", "boxes.csv:3: x_min 2, y_min 3, x_max 90", "resized"),
    (without_area, "box_without_area", "boxes.csv:3", "remove"),
    (swapped, "box_swapped", "boxes.csv:3", "lesser number first"),
    (no_number, "box_not_numeric", "boxes.csv:3", "four numbers"),
    (missing_image, "missing_file", "absent.png", "Restore"),
    (unknown_class, "unknown_class", "coco.json: annotations[1] (id 1)", "list of classes"),
    (twice, "duplicate_id", "coco.json: annotations[1] (id 0)", "anew"),
    (resized, "image_size_mismatch", "640×480", "Exif"),
    (malformed_xml, "malformed_xml", "1.xml:3:3: mismatched tag", "Correct"),
    (yolo_row, "malformed_row", "labels/1.txt:1: values outside 0 to 1", "shares"),
    (small_mask, "mask_size", "masks/1.png: 64×46", "size of its image"),
    (unknown_value, "unknown_mask_value", "masks/1.png: 7 (", "--data.ignore_index"),
    (no_mask, "missing_mask", "images/1.png", "Add a mask"),
]


def shown(findings: list[dict]) -> list[tuple[str, str]]:
    """Kind and severity of what is said about the examples themselves."""
    return [(f["kind"], f["severity"]) for f in findings if not f["kind"].startswith("near_duplicate")]


@pytest.mark.parametrize(
    ("make", "kind", "named", "mend"), IMAGES_AT_FAULT, ids=[case[0].__name__ for case in IMAGES_AT_FAULT]
)
def test_a_fault_is_named_and_its_image_can_be_skipped(tmp_path, make, kind, named, mend):
    data = make(tmp_path / "data")
    checked = run_here(["check", data, "--json"], tmp_path)
    assert checked.status == 1
    stops = [finding for finding in checked.json["findings"] if finding["severity"] == "stop"]
    assert [finding["kind"] for finding in stops] == [kind]
    assert any(named in text for text in (stops[0]["message"], *stops[0]["files"])), stops
    assert mend in stops[0]["mend"] and "--data.bad_files skip" in stops[0]["mend"]

    refused = run_here(["fit", data], tmp_path)
    assert refused.status == 1 and refused.out == "" and "Traceback" not in refused.err
    assert named in refused.err and mend in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

    skipped = run_here(["check", data, "--data.bad_files", "skip", "--json"], tmp_path)
    assert skipped.status == 0, skipped.out
    assert (kind, "warn") in shown(skipped.json["findings"])


@pytest.mark.parametrize(
    ("make", "kind", "named"),
    [
        (malformed_json, "malformed_json", "coco.json:1:"),
        (wrong_structure, "malformed_json", "no list 'categories'"),
        (lambda folder: table(folder, "", count=1), "single_image", "0.png"),
        (lambda folder: coco(folder, lambda content: content.update(annotations=[])), "no_boxes", "6 training images"),
    ],
    ids=["malformed_json", "wrong_structure", "single_image", "no_boxes"],
)
def test_what_cannot_be_skipped(tmp_path, make, kind, named):
    data = make(tmp_path / "data")
    for more in ([], ["--data.bad_files", "skip"]):
        checked = run_here(["check", data, *more, "--json"], tmp_path)
        assert checked.status == 1
        stops = [finding for finding in checked.json["findings"] if finding["severity"] == "stop"]
        assert [finding["kind"] for finding in stops] == [kind] and stops[0]["mend"]
        assert any(named in text for text in (stops[0]["message"], *stops[0]["files"])), stops


def test_sound_data_pass(tmp_path):
    assert run_here(["check", table(tmp_path / "boxes", "")], tmp_path).status == 0
    assert run_here(["check", masks(tmp_path / "masks", lambda mask: mask)], tmp_path).status == 0


def test_a_class_without_training_example(tmp_path):
    photos(tmp_path / "data")
    for split, numbers, label in (("train", (0, 1, 2), "cat"), ("test", (3, 4), "dog")):
        rows = "".join(f"{number}.png,2,3,30,40,{label}\n" for number in numbers)
        (tmp_path / f"data/{split}.csv").write_text(HEADER + rows)
    checked = run_here(["check", tmp_path / "data", "--json"], tmp_path)
    assert checked.status == 1
    stops = [finding for finding in checked.json["findings"] if finding["severity"] == "stop"]
    assert [finding["kind"] for finding in stops] == ["class_without_training"] and "'dog'" in stops[0]["message"]

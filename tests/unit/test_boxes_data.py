"""Images with boxes: COCO, Pascal VOC, YOLO and tables, in the layouts in which people have them; and what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_tfds
from conftest import draw_photo
from PIL import Image

from keras_transfer.data import checks, sources, splits
from keras_transfer.data.findings import DataError, Finding, Raw
from keras_transfer.recipe import DataSpec

WIDTH, HEIGHT = 64, 48


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_photo(seed % 3, 3, max(size), seed).resize(size).save(path, **options)
    return path


def text(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def voc(path: Path, *objects: tuple[object, ...], filename: str = "", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Objects are (name, xmin, ymin, xmax, ymax) and the text of further elements."""
    inside = "".join(
        f"  <object>\n    <name>{name}</name>\n    <bndbox>\n      <xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax>\n    </bndbox>{''.join(map(str, more))}\n  </object>\n"
        for name, a, b, c, d, *more in objects
    )
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return text(path, f"<annotation>\n  <filename>{filename}</filename>\n  {sizes}\n{inside}</annotation>\n")


def coco(images: int = 3, **changes: object) -> dict:
    """A file of images 0.png, 1.png, … with ids 10, 20, … and a box each, of categories 7 and 3."""
    content = {
        "images": [
            {"id": 10 * (n + 1), "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(images)
        ],
        "annotations": [
            {"id": n, "image_id": 10 * (n + 1), "category_id": (7, 3)[n % 2], "bbox": [1.5, 2, 10, 20], "iscrowd": 0}
            for n in range(images)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    return {**content, **changes}


def load(source: object, task: str = "", **spec: object) -> Raw:
    return sources.load(DataSpec(source=str(source), **spec), task)


def findings(source: object, task: str = "", **spec: object) -> dict[str, Finding]:
    """What `check` says, by kind."""
    found = checks.inspect(DataSpec(source=str(source), **spec), task)
    return {finding.kind: finding for finding in found}


def names(raw: Raw) -> dict[str, list[str]]:
    return {split: [record.id for record in records] for split, records in raw.items()}


def refused(source: object, kind: str, *said: str, task: str = "") -> Finding:
    """The one finding that stops, which says all of this and the mend."""
    stops = [f for f in checks.inspect(DataSpec(source=str(source)), task) if f.severity == "stop"]
    assert [finding.kind for finding in stops] == [kind], stops
    shown = f"{stops[0].message} {stops[0].files}"
    for word in said:
        assert word in shown, (word, shown)
    assert stops[0].mend
    return stops[0]


# --- COCO


def coco_folder(root: Path, content: dict | None = None, images: int = 3) -> Path:
    for number in range(images):
        photo(root / f"{number}.png", number)
    text(root / "boxes.json", coco(images) if content is None else content)
    return root


def test_coco_beside_its_images(tmp_path):
    raw = load(coco_folder(tmp_path))
    assert names(raw) == {"all": ["0.png", "1.png", "2.png"]}
    first = raw["all"][0]
    assert first.fields == {
        "image": str(tmp_path / "0.png"),
        "boxes": ((1.5, 2.0, 11.5, 22.0),),
        "labels": ("dog",),
        "classes": ("cat", "dog"),
    }
    assert len(first.content) == 16 and raw.findings == []
    assert names(load(tmp_path / "boxes.json")) == names(raw)


def test_coco_crowds_are_kept_as_such(tmp_path):
    content = coco(3)
    content["annotations"] += [{"id": 9, "image_id": 10, "category_id": 3, "bbox": [0, 0, WIDTH, HEIGHT], "iscrowd": 1}]
    first, second, _ = load(coco_folder(tmp_path, content))["all"]
    assert first.fields["crowd"] == (False, True) and first.fields["labels"] == ("dog", "cat")
    assert "crowd" not in second.fields


def test_coco_image_without_annotations_has_no_boxes(tmp_path):
    content = coco(3)
    content["annotations"] = content["annotations"][:2]
    last = load(coco_folder(tmp_path, content))["all"][-1]
    assert last.fields["boxes"] == last.fields["labels"] == ()


def test_cocos_own_layout(tmp_path):
    for split, start in (("train", 0), ("val", 3)):
        text(tmp_path / f"annotations/instances_{split}2017.json", coco(3))
        text(tmp_path / f"annotations/captions_{split}2017.json", {"images": [], "annotations": []})
        for number in range(3):
            photo(tmp_path / f"{split}2017/{number}.png", start + number)
    raw = load(tmp_path)
    assert names(raw) == {
        "train": [f"train2017/{n}.png" for n in range(3)],
        "validation": [f"val2017/{n}.png" for n in range(3)],
    }


def test_coco_one_file_in_annotations_with_images_in_a_folder(tmp_path):
    text(tmp_path / "annotations/instances_default.json", coco(3))
    for number in range(3):
        photo(tmp_path / f"images/{number}.png", number)
    assert names(load(tmp_path)) == {"all": [f"images/{n}.png" for n in range(3)]}


def test_coco_a_folder_a_split_with_a_heading_as_category(tmp_path):
    content = coco(3)
    content["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        *({**category, "supercategory": "animals"} for category in content["categories"]),
    ]
    for split, start in (("train", 0), ("valid", 3), ("test", 6)):
        text(tmp_path / f"{split}/_annotations.coco.json", content)
        for number in range(3):
            photo(tmp_path / f"{split}/{number}.png", start + number)
    raw = load(tmp_path)
    assert {split: len(records) for split, records in raw.items()} == {"train": 3, "validation": 3, "test": 3}
    assert raw["test"][0].id == "test/0.png" and raw["test"][0].fields["classes"] == ("cat", "dog")


def test_coco_paths_of_another_machine(tmp_path):
    content = coco(3)
    for entry in content["images"]:
        entry["file_name"] = f"C:\\data\\pictures\\{entry['file_name']}"
    assert names(load(coco_folder(tmp_path, content))) == {"all": ["0.png", "1.png", "2.png"]}


COCO_FAULTS = {
    "missing_file": (lambda c: c["images"][1].update(file_name="absent.png"), "images[1] (id 20)", "absent.png"),
    "image_size_mismatch": (lambda c: c["images"][1].update(width=HEIGHT, height=WIDTH), "images[1]", "48×64"),
    "unknown_class": (lambda c: c["annotations"][1].update(category_id=5), "annotations[1] (id 1)", "5; listed: 3, 7"),
    "box_outside_image": (lambda c: c["annotations"][1].update(bbox=[60, 0, 20, 20]), "annotations[1]", "64×48"),
    "box_without_area": (lambda c: c["annotations"][1].update(bbox=[5, 5, 0, 20]), "annotations[1]", "[5, 5, 0, 20]"),
    "box_swapped": (lambda c: c["annotations"][1].update(bbox=[20, 20, -5, 5]), "annotations[1]", "[20, 20, -5, 5]"),
    "box_not_numeric": (lambda c: c["annotations"][1].update(bbox=[1, 2, None, 4]), "annotations[1]", "null"),
    "malformed_json": (lambda c: c["images"][1].pop("file_name"), "images[1]", "file_name"),
    "duplicate_id": (lambda c: c["annotations"][2].update(id=1), "annotations[2] (id 1)", "same id"),
}


@pytest.mark.parametrize("kind", COCO_FAULTS)
def test_coco_faults_are_named_and_can_be_skipped(tmp_path, kind):
    change, *said = COCO_FAULTS[kind]
    content = coco(4)
    change(content)
    if kind == "malformed_json":  # else its annotation names an image that is not there
        content["annotations"].pop(1)
    root = coco_folder(tmp_path, content, 4)
    refused(root, kind, *said)
    raw = load(root, bad_files="skip")
    assert len(raw["all"]) == 3
    assert [(finding.kind, finding.severity) for finding in raw.findings] == [(kind, "warn")]


def test_coco_duplicate_image_ids_leave_out_both(tmp_path):
    content = coco(4)
    content["images"][1]["id"] = 10
    content["annotations"].pop(1)
    root = coco_folder(tmp_path, content, 4)
    refused(root, "duplicate_id", "images[1] (id 10)", "1.png", "0.png")
    assert names(load(root, bad_files="skip"))["all"] == ["2.png", "3.png"]


def test_coco_annotation_of_an_image_that_is_not_listed(tmp_path):
    content = coco(4)
    content["annotations"][1]["image_id"] = 99
    refused(coco_folder(tmp_path, content, 4), "unknown_image", "annotations[1] (id 1)", "99")
    assert len(load(tmp_path, bad_files="skip")["all"]) == 4


def test_coco_a_box_may_reach_a_pixel_beyond(tmp_path):
    content = coco(3)
    content["annotations"][0]["bbox"] = [-0.9, 0, WIDTH + 1.8, HEIGHT + 0.5]
    assert load(coco_folder(tmp_path, content))["all"][0].fields["boxes"] == ((0.0, 0.0, 64.0, 48.0),)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ('{"images": [],\n "annotations": [}', "malformed_json", "boxes.json:2:18"),
        ('{"images": {}, "annotations": [], "categories": []}', "malformed_json", "no list 'images'"),
        ('{"images": [], "annotations": []}', "malformed_json", "no list 'categories'"),
        (json.dumps(coco(categories=[{"id": 1}])), "malformed_json", "categories[0]"),
        (
            json.dumps(coco(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])),
            "duplicate_id",
            "categories[1]",
        ),
        (json.dumps(coco(0)), "no_examples", "none that can be used"),
    ],
)
def test_coco_files_of_no_use(tmp_path, content, kind, said):
    text(tmp_path / "boxes.json", content if isinstance(content, str) else json.dumps(content))
    refused(tmp_path / "boxes.json", kind, said)


def test_two_coco_files_in_a_folder(tmp_path):
    coco_folder(tmp_path)
    shutil.copy(tmp_path / "boxes.json", tmp_path / "more.json")
    refused(tmp_path, "ambiguous_source", "more.json")


# --- Pascal VOC


def test_voc_beside_its_images(tmp_path):
    photo(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", ("cat", 1, 1, 1, 1), ("dog", 11, 5, 64, 48), filename="a.jpg")
    voc(tmp_path / "b.xml")
    photo(tmp_path / "b.png", 1)
    raw = load(tmp_path)
    first, second = raw["all"]
    assert first.fields["boxes"] == ((0.0, 0.0, 1.0, 1.0), (10.0, 4.0, 64.0, 48.0)), (
        "VOC counts from 1, the last included"
    )
    assert first.fields["labels"] == ("cat", "dog") and "classes" not in first.fields
    assert (second.id, second.fields["boxes"]) == ("b.png", ()), "found by the stem, without objects"


def test_voc_difficult_objects_do_not_count_and_parts_are_no_objects(tmp_path):
    photo(tmp_path / "a.png")
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    voc(tmp_path / "a.xml", ("cat", 1, 1, 9, 9, part), ("cat", 1, 1, 20, 20, "<difficult>1</difficult>"))
    fields = load(tmp_path)["all"][0].fields
    assert fields["labels"] == ("cat", "cat") and fields["crowd"] == (False, True)
    assert fields["boxes"] == ((0.0, 0.0, 9.0, 9.0), (0.0, 0.0, 20.0, 20.0))


def devkit(root: Path, **lists: str) -> Path:
    for number, stem in enumerate("abcd"):
        photo(root / f"JPEGImages/{stem}.jpg", number)
        voc(root / f"Annotations/{stem}.xml", ("cat", 1, 1, 9, 9), filename=f"{stem}.jpg")
    for name, stems in lists.items():
        text(root / f"ImageSets/Main/{name}.txt", "".join(f"{stem}\n" for stem in stems))
    return root


def test_voc_development_kit(tmp_path):
    devkit(tmp_path / "VOCdevkit/VOC2007", train="ab", val="c", trainval="abc", test="d", cat_train="ab")
    expected = {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
    expected = {split: [f"JPEGImages/{stem}.jpg" for stem in stems] for split, stems in expected.items()}
    assert names(load(tmp_path)) == names(load(tmp_path / "VOCdevkit/VOC2007")) == expected


def test_voc_development_kit_without_lists(tmp_path):
    assert len(load(devkit(tmp_path))["all"]) == 4


def test_voc_list_names_what_is_not_there(tmp_path):
    finding = refused(devkit(tmp_path, train="abx", val="cd"), "missing_file", "train.txt:3", "x.xml")
    assert finding.count == 1


def test_voc_images_without_annotation_are_said(tmp_path):
    devkit(tmp_path)
    photo(tmp_path / "JPEGImages/e.jpg", 9)
    (finding,) = load(tmp_path).findings
    assert (finding.kind, finding.severity, finding.files) == (
        "unannotated",
        "warn",
        (str(tmp_path / "JPEGImages/e.jpg"),),
    )


VOC_FAULTS = {
    "box_outside_image": (("cat", 1, 1, 70, 9), ":6", "xmax 70"),
    "box_swapped": (("cat", 20, 1, 10, 9), ":6", "xmin 20"),
    "box_not_numeric": (("cat", 1, 1, "nan", 9), ":6", "xmax nan"),
    "unlabelled": (("", 1, 1, 9, 9), ":6", "xmin 1"),
}


@pytest.mark.parametrize("kind", VOC_FAULTS)
def test_voc_faults_are_named_with_their_line_and_can_be_skipped(tmp_path, kind):
    bad, *said = VOC_FAULTS[kind]
    devkit(tmp_path)
    voc(tmp_path / "Annotations/b.xml", bad)
    refused(tmp_path, kind, str(tmp_path / "Annotations/b.xml"), *said)
    assert names(load(tmp_path, bad_files="skip"))["all"] == [f"JPEGImages/{stem}.jpg" for stem in "acd"]


def test_voc_a_single_pixel_is_a_box(tmp_path):
    devkit(tmp_path)
    voc(tmp_path / "Annotations/b.xml", ("cat", 64, 48, 64, 48))
    assert load(tmp_path)["all"][1].fields["boxes"] == ((63.0, 47.0, 64.0, 48.0),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<annotation>\n  <object>\n</annotation>", "b.xml:3:"),
        ("<html><body/></html>", "<html>"),
        ("", "b.xml:1:1"),
    ],
)
def test_voc_malformed_files(tmp_path, content, said):
    devkit(tmp_path)
    text(tmp_path / "Annotations/b.xml", content)
    refused(tmp_path, "malformed_xml", said)
    assert len(load(tmp_path, bad_files="skip")["all"]) == 3


def test_voc_missing_image(tmp_path):
    devkit(tmp_path)
    (tmp_path / "JPEGImages/b.jpg").unlink()
    refused(tmp_path, "missing_file", "b.xml", "b.jpg")


def test_voc_size_of_another_image(tmp_path):
    devkit(tmp_path)
    voc(tmp_path / "Annotations/b.xml", ("cat", 1, 1, 9, 9), size=(640, 480))
    refused(tmp_path, "image_size_mismatch", "b.xml", "640×480", "64×48")
    voc(tmp_path / "Annotations/b.xml", ("cat", 1, 1, 9, 9), size=(0, 0))
    assert findings(tmp_path).keys() <= {"near_duplicate"}, "tools that do not know the size write 0"


# --- orientation


def turned(path: Path, orientation: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return photo(path, orientation, size, exif=exif)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_boxes_are_in_pixels_of_the_upright_image(tmp_path, ending):
    turned(tmp_path / f"a{ending}", 6)
    voc(tmp_path / "a.xml", ("cat", 1, 1, 48, 64), size=(HEIGHT, WIDTH))
    assert load(tmp_path)["all"][0].fields["boxes"] == ((0.0, 0.0, 48.0, 64.0),)
    voc(tmp_path / "a.xml", ("cat", 1, 1, 64, 48), size=(WIDTH, HEIGHT))
    with pytest.raises(DataError, match="64×48, .* is 48×64") as caught:
        load(tmp_path)
    assert "Exif" in str(caught.value)


# --- YOLO


def yolo(
    root: Path, stems: str = "abcd", labels: str = "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.5\n", start: int = 0
) -> Path:
    for number, stem in enumerate(stems, start):
        photo(root / f"images/{stem}.png", number)
        text(root / f"labels/{stem}.txt", labels)
    return root


def test_yolo(tmp_path):
    raw = load(yolo(tmp_path))
    assert names(raw) == {"all": [f"images/{stem}.png" for stem in "abcd"]} and raw.findings == []
    fields = raw["all"][0].fields
    assert fields["boxes"] == ((24.0, 12.0, 40.0, 36.0), (0.0, 0.0, 32.0, 24.0))
    assert fields["labels"] == ("0", "1") and "classes" not in fields


def test_yolo_side_by_side(tmp_path):
    yolo(tmp_path / "x")
    for kind in ("images", "labels"):
        for path in (tmp_path / "x" / kind).iterdir():
            shutil.move(path, tmp_path / path.name)
        (tmp_path / "x" / kind).rmdir()
    (tmp_path / "x").rmdir()
    text(tmp_path / "a.txt", "")
    text(tmp_path / "classes.txt", "cat\ndog\n")
    records = load(tmp_path)["all"]
    assert [(record.id, len(record.fields["boxes"])) for record in records] == [
        ("a.png", 0),
        ("b.png", 2),
        ("c.png", 2),
        ("d.png", 2),
    ]
    assert records[1].fields["labels"] == ("cat", "dog")


def test_images_with_captions_are_not_yolo(tmp_path):
    photo(tmp_path / "a.png")
    text(tmp_path / "a.txt", "a cat on a mat")
    with pytest.raises(DataError, match="no class folders"):
        load(tmp_path)


def test_yolo_folders_of_splits_on_top(tmp_path):
    for number, split in enumerate(("train", "valid", "test")):
        yolo(tmp_path / split, start=10 * number)
    raw = load(tmp_path)
    assert [(split, len(records)) for split, records in raw.items()] == [("train", 4), ("validation", 4), ("test", 4)]


def test_yolo_folders_of_splits_inside(tmp_path):
    for number, split in enumerate(("train", "val")):
        yolo(tmp_path / "x", start=10 * number)
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.move(tmp_path / "x" / kind, tmp_path / kind / split)
    photo(tmp_path / "images/test/e.png", 30)
    text(tmp_path / "data.yaml", "names: [cat, dog]\n")
    raw = load(tmp_path)
    assert names(raw) == {
        "train": [f"images/train/{stem}.png" for stem in "abcd"],
        "validation": [f"images/val/{stem}.png" for stem in "abcd"],
    }
    assert raw["train"][0].fields["classes"] == raw["train"][0].fields["labels"] == ("cat", "dog")
    (finding,) = raw.findings
    assert finding.kind == "unlabelled_split" and "'test'" in finding.message


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("classes.txt", "tabby cat\ndog\n", ("tabby cat", "dog")),
        ("obj.names", "cat\ndog\n\n", ("cat", "dog")),
        ("data.yaml", "train: ../train/images\nnc: 2\nnames: ['cat', \"it's, a dog\"]\n", ("cat", "it's, a dog")),
        ("data.yaml", "names:\n  0: cat  # small\n  1: 'dog: large'\nnc: 2\n", ("cat", "dog: large")),
        ("data.yaml", "path: .\nnames:\n- cat\n- dog\ntrain: images\n", ("cat", "dog")),
        ("data.yaml", "names: [cat,\n  dog]\n", ("cat", "dog")),
        ("data.yaml", "names: {0: cat, 1: dog}\n", ("cat", "dog")),
        ("data.yaml", "names: {1: dog, 0: cat}\n", ("cat", "dog")),
    ],
)
def test_yolo_names_of_classes(tmp_path, file, content, expected):
    text(yolo(tmp_path) / file, content)
    assert load(tmp_path)["all"][0].fields["labels"] == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nc: 2\nnames: *anchors\n", "data.yaml:2"),
        ("names:\n  0: cat\n  2: dog\n", "not 0, 1, 2"),
        ("names:\n  - cat\n  - [a, b]\n", "data.yaml:3"),
        ("names: [cat, cat]\n", "name of another one"),
        ("names: [cat,\n", "data.yaml:1"),
    ],
)
def test_yolo_names_that_cannot_be_read(tmp_path, content, said):
    text(yolo(tmp_path) / "data.yaml", content)
    refused(tmp_path, "class_names", said)


def test_yolo_image_without_label_file_has_no_boxes(tmp_path):
    yolo(tmp_path)
    (tmp_path / "labels/b.txt").unlink()
    text(tmp_path / "labels/c.txt", "\n")
    text(tmp_path / "labels/lost.txt", "0 0.5 0.5 0.1 0.1\n")
    raw = load(tmp_path)
    assert [len(record.fields["boxes"]) for record in raw["all"]] == [2, 0, 0, 2]
    alone, lost = raw.findings
    assert (alone.kind, alone.severity, alone.count) == ("no_label_file", "warn", 1) and "1 of 4" in alone.message
    assert (lost.kind, lost.files) == ("label_without_image", (str(tmp_path / "labels/lost.txt"),))


YOLO_FAULTS = {
    "0 0.5 0.5 0.2": ("malformed_row", "4 fields, expected 5"),
    "0 0.5 0.5 0.2 0.2 0.9": ("malformed_row", "6 fields, expected 5"),
    "0 0.5 0.5 1.2 0.2": ("malformed_row", "outside 0 to 1"),
    "0 32 24 16 24": ("malformed_row", "outside 0 to 1"),
    "0 0.5 0.5 nan 0.2": ("malformed_row", "five numbers"),
    "cat 0.5 0.5 0.2 0.2": ("malformed_row", "five numbers"),
    "0.5 0.5 0.5 0.2 0.2": ("malformed_row", "no index"),
    "2 0.5 0.5 0.2 0.2": ("unknown_class", "class 2; listed: 2"),
    "0 0.5 0.5 0.2 0": ("box_without_area", "0.2 0"),
    "0 0.9 0.5 0.4 0.2": ("box_outside_image", "64×48"),
}


@pytest.mark.parametrize("row", YOLO_FAULTS)
def test_yolo_faults_are_named_with_their_line_and_can_be_skipped(tmp_path, row):
    kind, said = YOLO_FAULTS[row]
    yolo(tmp_path)
    text(tmp_path / "classes.txt", "cat\ndog\n")
    text(tmp_path / "labels/b.txt", f"0 0.5 0.5 0.1 0.1\n{row}\n")
    refused(tmp_path, kind, f"{tmp_path / 'labels/b.txt'}:2", said)
    assert names(load(tmp_path, bad_files="skip"))["all"] == [f"images/{stem}.png" for stem in "acd"]


# --- tables


HEADER = "path,x_min,y_min,x_max,y_max,label\n"
ROWS = "img/a.png,1,2,11.5,12,cat\nimg/b.png,,,,,\nimg/a.png,0,0,64,48,dog\nimg/c.png,5,5,9,9,cat\n"


def table(root: Path, content: str = HEADER + ROWS, name: str = "boxes.csv") -> Path:
    for number, stem in enumerate("abc"):
        photo(root / f"img/{stem}.png", number)
    return text(root / name, content)


def test_table_of_boxes(tmp_path):
    raw = load(table(tmp_path))
    assert names(raw) == {"all": ["img/a.png", "img/b.png", "img/c.png"]} == names(load(tmp_path))
    first, empty, _ = raw["all"]
    assert first.fields["boxes"] == ((1.0, 2.0, 11.5, 12.0), (0.0, 0.0, 64.0, 48.0))
    assert first.fields["labels"] == ("cat", "dog") and empty.fields["boxes"] == empty.fields["labels"] == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.tsv", (HEADER + ROWS).replace(",", "\t")),
        ("boxes.csv", (HEADER + ROWS).replace(",", ";")),
        ("boxes.csv", "label,path,xmin,ymin,xmax,ymax\ncat,img/a.png,1,2,11.5,12\ndog,img/a.png,0,0,64,48\n"),
        (
            "boxes.jsonl",
            '{"path": "img/a.png", "x_min": 1, "y_min": 2, "x_max": 11.5, "y_max": 12, "label": "cat"}\n'
            '{"path": "img/a.png", "x_min": 0, "y_min": 0, "x_max": 64, "y_max": 48, "label": "dog"}\n',
        ),
        (
            "boxes.jsonl",
            '{"path": "img/a.png", "boxes": [[1, 2, 11.5, 12], [0, 0, 64, 48]], "labels": ["cat", "dog"]}\n'
            '{"path": "img/b.png", "boxes": [], "labels": []}\n',
        ),
        (
            "boxes.jsonl",
            '{"path": "img/a.png", "boxes": [{"x_min": 1, "y_min": 2, "x_max": 11.5, "y_max": 12, "label": "cat"}, '
            '{"box": [0, 0, 64, 48], "label": "dog"}]}\n',
        ),
    ],
)
def test_tables_of_other_forms(tmp_path, name, content):
    first = load(table(tmp_path, content, name))["all"][0]
    assert first.fields["boxes"] == ((1.0, 2.0, 11.5, 12.0), (0.0, 0.0, 64.0, 48.0))
    assert first.fields["labels"] == ("cat", "dog")


def test_tables_of_splits_and_groups(tmp_path):
    table(tmp_path, HEADER.strip() + ",group\nimg/a.png,1,2,9,9,cat,site 1\n", "train.csv")
    table(tmp_path, HEADER.strip() + ",group\nimg/b.png,1,2,9,9,cat,site 2\n", "test.csv")
    raw = load(tmp_path)
    assert names(raw) == {"train": ["img/a.png"], "test": ["img/b.png"]}
    assert [record.group for records in raw.values() for record in records] == ["site 1", "site 2"]


TABLE_FAULTS = {
    "img/b.png,5,5,oops,9,cat": ("box_not_numeric", "x_max oops"),
    "img/b.png,5,5,,9,cat": ("box_not_numeric", "x_max (empty)"),
    "img/b.png,5,5,inf,9,cat": ("box_not_numeric", "x_max inf"),
    "img/b.png,5,5,9,9,": ("unlabelled", "x_min 5"),
    "img/b.png,9,5,5,9,cat": ("box_swapped", "x_min 9"),
    "img/b.png,5,9,9,9,cat": ("box_without_area", "y_max 9"),
    "img/b.png,-5,5,9,9,cat": ("box_outside_image", "x_min -5"),
    "img/absent.png,5,5,9,9,cat": ("missing_file", "absent.png"),
    ",5,5,9,9,cat": ("missing_file", "without a path"),
}


@pytest.mark.parametrize("row", TABLE_FAULTS)
def test_table_faults_are_named_with_their_line_and_can_be_skipped(tmp_path, row):
    kind, said = TABLE_FAULTS[row]
    path = table(tmp_path, f"{HEADER}img/a.png,1,2,9,9,cat\n{row}\nimg/c.png,5,5,9,9,dog\n")
    refused(path, kind, f"{path}:3", said)
    assert names(load(path, bad_files="skip"))["all"] == ["img/a.png", "img/c.png"]


def test_one_bad_box_leaves_out_its_image_and_all_are_named(tmp_path):
    rows = "img/a.png,1,2,9,9,cat\nimg/a.png,9,2,1,9,cat\nimg/a.png,1,9,9,2,cat\nimg/b.png,1,2,90,9,cat\n"
    path = table(tmp_path, HEADER + rows + "img/c.png,5,5,9,9,dog\n")
    with pytest.raises(DataError) as caught:
        load(path)
    assert [(finding.kind, finding.count) for finding in caught.value.findings] == [
        ("box_swapped", 2),
        ("box_outside_image", 1),
    ]
    assert names(load(path, bad_files="skip"))["all"] == ["img/c.png"]


# --- checks and splits


def test_sound_data_of_one_class_has_no_findings(tmp_path):
    for number in range(6):
        photo(tmp_path / f"{number}.png", number, (96, 80 + number))
    rows = "".join(f"{number}.png,1,2,30,40,tree\n" for number in range(6))
    assert findings(text(tmp_path / "boxes.csv", HEADER + rows)).keys() <= {"near_duplicate"}


def test_images_without_any_box(tmp_path):
    refused(table(tmp_path, HEADER + "img/a.png,,,,,\nimg/b.png,,,,,\n"), "no_boxes", "none of the 2 training images")


def test_a_single_image(tmp_path):
    path = table(tmp_path, HEADER + "img/a.png,1,2,9,9,cat\n")
    finding = refused(path, "single_image", "a.png")
    assert "parts" in finding.mend
    assert "single_image" not in findings(path, validation_share=0.0)


def test_a_class_without_training_example(tmp_path):
    table(tmp_path, HEADER + "img/a.png,1,2,9,9,cat\nimg/b.png,1,2,9,9,cat\n", "train.csv")
    table(tmp_path, HEADER + "img/c.png,1,2,9,9,dog\nimg/c.png,1,2,19,9,dog\n", "test.csv")
    finding = refused(tmp_path, "class_without_training", "'dog'", "c.png")
    assert finding.count == 1, "images, not boxes"


def test_listed_classes_without_an_example_are_said(tmp_path):
    content = coco(3)
    content["categories"].append({"id": 1, "name": "eel"})
    finding = findings(coco_folder(tmp_path, content))["class_without_example"]
    assert (finding.severity, finding.files) == ("warn", ("eel",)) and "1 of the 3" in finding.message


def test_boxes_are_counted_for_imbalance(tmp_path):
    rows = "img/a.png,1,2,9,9,cat\n" * 3 + "img/b.png,1,2,9,9,cat\n" * 5 + "img/c.png,1,2,9,9,dog\n" * 2
    finding = findings(table(tmp_path, HEADER + rows))["imbalance"]
    assert finding.severity == "warn" and "'cat' has 8 boxes, 'dog' 2" in finding.message


def test_the_same_image_in_training_and_test(tmp_path):
    table(tmp_path, HEADER + "img/a.png,1,2,9,9,cat\nimg/b.png,1,2,9,9,cat\n", "train.csv")
    shutil.copy(tmp_path / "img/a.png", tmp_path / "img/d.png")
    table(tmp_path, HEADER + "img/d.png,1,2,9,9,cat\n", "test.csv")
    refused(tmp_path, "same_in_two_splits", "img/d.png")


def test_copies_with_other_boxes_conflict(tmp_path):
    table(tmp_path)
    shutil.copy(tmp_path / "img/a.png", tmp_path / "img/d.png")
    text(tmp_path / "boxes.csv", HEADER + ROWS + "img/d.png,1,2,9,9,cat\n")
    found = findings(tmp_path / "boxes.csv")
    assert "img/a.png (2 boxes)" in found["conflicting_labels"].files[0] and found["duplicate"].count == 1


def test_an_image_that_cannot_be_read_is_named_and_can_be_skipped(tmp_path):
    yolo(tmp_path)
    (tmp_path / "images/b.png").write_bytes(b"no image")
    refused(tmp_path, "unreadable_file", "images/b.png")
    raw, found = checks.check_source(DataSpec(source=str(tmp_path), bad_files="skip"))
    assert raw is not None and len(raw["all"]) == 3
    assert {finding.severity for finding in found} == {"warn"}


def many(root: Path, count: int = 40, rare: int = 3) -> Raw:
    """Images of one class, `rare` of which have another class too."""
    rows = []
    for number in range(count):
        photo(root / f"{number}.png", number, (32, 32))
        rows.append(f"{number}.png,1,2,9,9,cat\n")
        if number < rare:
            rows.append(f"{number}.png,1,2,19,19,eel\n")
    return load(text(root / "boxes.csv", HEADER + "".join(rows)))


def test_every_split_has_the_rare_class(tmp_path):
    raw = many(tmp_path)
    parts = splits.split(raw, DataSpec())
    for _, records in parts.named():
        assert any("eel" in record.fields["labels"] for record in records)
    assert sum(len(records) for _, records in parts.named()) == 40
    assert len(parts.validation) > 1 and len(parts.tests["test"]) > 1


def test_a_class_on_one_image_is_trained_on(tmp_path):
    parts = splits.split(many(tmp_path, rare=1), DataSpec())
    assert [name for name, records in parts.named() if any("eel" in r.fields["labels"] for r in records)] == ["train"]


def test_limit_keeps_every_class(tmp_path):
    raw = many(tmp_path, rare=1)
    for limit in (2, 5):
        train = splits.split(raw, DataSpec(limit=limit)).train
        assert len(train) == limit and any("eel" in record.fields["labels"] for record in train)


def test_groups_stay_together(tmp_path):
    rows = []
    for number in range(20):
        photo(tmp_path / f"site{number % 5}_{number}.png", number, (32, 32))
        rows.append(f"site{number % 5}_{number}.png,1,2,9,9,cat\n")
    path = text(tmp_path / "boxes.csv", HEADER + "".join(rows))
    parts = splits.split(load(path, group_pattern=r"(site\d)"), DataSpec(validation_share=0.3, test_share=0.3))
    of = [{record.group for record in records} for _, records in parts.named()]
    assert sum(map(len, of)) == 5 and set().union(*of) == {f"site{n}" for n in range(5)}


def test_the_fingerprint_tells_other_boxes(tmp_path):
    first = splits.split(many(tmp_path), DataSpec()).fingerprint
    assert splits.split(many(tmp_path), DataSpec()).fingerprint == first
    assert splits.split(many(tmp_path, rare=4), DataSpec()).fingerprint != first


# --- TensorFlow Datasets


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a tiny stand-in for a data set."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    # Of its own: what is made of a set is kept by the set's sizes, which a changed box leaves as they are.
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "cache"))
    return lambda name, change=None: tiny_tfds.write_tiny(tmp_path / "tfds", name, 64, change)


def test_tfds_voc(prepared):
    prepared("voc/2007")
    raw = load("tfds:voc/2007")
    assert {split: len(records) for split, records in raw.items()} == {"train": 40, "validation": 20, "test": 20}
    assert raw.findings == []
    fields = raw["train"][3].fields
    assert fields["boxes"] == ((21.0, 33.0, 37.0, 49.0), (0.0, 0.0, 64.0, 64.0)) and fields["crowd"] == (False, True)
    assert fields["labels"] == ("boat", "boat") and len(fields["classes"]) == 20
    assert len(raw["train"][0].content) == 16 and Path(fields["image"]).is_file()


def test_tfds_coco_whose_test_has_no_published_boxes(prepared):
    prepared("coco/2017")
    raw = load("tfds:coco/2017", "object_detection")
    assert {split: len(records) for split, records in raw.items()} == {"train": 80, "validation": 20}
    (finding,) = raw.findings
    assert finding.kind == "unlabelled" and "'test'" in finding.message
    assert len(raw["train"][0].fields["classes"]) == 80 and raw["train"][3].fields["crowd"] == (False, True)


def test_tfds_boxes_at_fault_are_left_out_and_said(prepared):
    def spoil(rows):
        rows["train"][2]["objects"][0]["bbox"] = np.array([0.5, 0.25, 0.5, 0.75], np.float32)

    prepared("voc/2007", spoil)
    raw = load("tfds:voc/2007")
    assert len(raw["train"]) == 39
    (finding,) = raw.findings
    assert (finding.kind, finding.severity) == ("box_without_area", "warn")
    assert "train/000002 objects[0]" in finding.files[0]


@pytest.mark.samples
def test_sample_of_trees():
    raw = load("sample:trees_boxes")
    assert {split: len(records) for split, records in raw.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
        "test_small": 1,
    }
    assert raw.findings == [] and raw["train"][0].fields["labels"][0] == "Tree"
    assert len(raw["test"][0].fields["boxes"]) == 279 and len(raw["test_small"][0].fields["boxes"]) == 61
    boxes = [box for records in raw.values() for record in records for box in record.fields["boxes"]]
    assert all(x_min < x_max and y_min < y_max for x_min, y_min, x_max, y_max in boxes)

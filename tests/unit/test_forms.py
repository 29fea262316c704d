"""Which form a source has: every form, what tells them apart, and what is said where none fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keras_transfer.data import forms
from keras_transfer.data.findings import DataError
from keras_transfer.recipe import DataSpec

SQUAD = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}
COCO = {"images": [], "annotations": [], "categories": []}
VOC = "<?xml version='1.0'?>\n<!-- made -->\n<annotation><filename>a.jpg</filename></annotation>"


def write(path: Path, content: object = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def class_folders(root: Path, ending: str, classes=("cat", "dog"), count: int = 3) -> Path:
    for label in classes:
        for number in range(count):
            write(root / label / f"{number}{ending}")
    return root


def kind_and_task(source: object, **columns: str) -> tuple[str, str]:
    form = forms.infer(str(source), DataSpec(source=str(source), **columns))
    return form.kind, form.task


@pytest.mark.parametrize(
    ("name", "content", "task"),
    [
        ("a.csv", "path,label\n", "image_classification"),
        ("a.csv", "id;Label;path\n", "image_classification"),
        ("a.csv", "\ufefftext,label\n", "text_classification"),
        ("a.tsv", "label\ttext\n", "text_classification"),
        ("a.csv", "path,x_min,y_min,x_max,y_max,label\n", "object_detection"),
        ("a.csv", "question,context,answers\n", "question_answering"),
        ("a.jsonl", '{"text": "a", "label": 1}\n', "text_classification"),
        ("a.jsonl", '{"path": "a.jpg", "label": 1}\n', "image_classification"),
        ("a.ndjson", '{"question": "a", "context": "b"}\n{"answers": []}\n', "question_answering"),
    ],
)
def test_table_by_columns(tmp_path, name, content, task):
    path = write(tmp_path / name, content)
    assert kind_and_task(path) == ("table", task)
    assert kind_and_task(tmp_path) == ("table", task), "a folder with this one table"


def test_table_with_other_columns(tmp_path):
    path = write(tmp_path / "a.csv", "review,stars\nfine,5\n")
    assert kind_and_task(path, text_column="review", label_column="stars") == ("table", "text_classification")
    with pytest.raises(DataError) as caught:
        forms.infer(str(path))
    message = str(caught.value)
    assert "review,stars" in message, "what was found"
    assert "text,label" in message, "what was expected"
    assert "--data.text_column" in message and "--data.label_column" in message, "the mend"


def test_table_lacks_one_column(tmp_path):
    path = write(tmp_path / "a.csv", "text,stars\nfine,5\n")
    with pytest.raises(DataError) as caught:
        forms.infer(str(path))
    message = str(caught.value)
    assert "text,stars" in message and "text,label" in message
    assert "--data.label_column" in message and "--data.text_column" not in message


@pytest.mark.parametrize(
    ("content", "kind", "task"), [(SQUAD, "squad", "question_answering"), (COCO, "coco", "object_detection")]
)
def test_json(tmp_path, content, kind, task):
    assert kind_and_task(write(tmp_path / "x.json", content)) == (kind, task)
    assert kind_and_task(tmp_path) == (kind, task)


def test_json_of_another_kind(tmp_path):
    with pytest.raises(DataError, match="neither SQuAD nor COCO"):
        forms.infer(str(write(tmp_path / "x.json", {"a": 1})))


def test_json_whose_keys_come_late(tmp_path):
    content = {"images": [{"id": n, "file_name": "x" * 50} for n in range(20_000)], "annotations": []}
    assert kind_and_task(write(tmp_path / "x.json", content)) == ("coco", "object_detection")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"a.jpg": "x", "a.xml": VOC}, "voc"),
        ({"JPEGImages/a.jpg": "x", "Annotations/a.xml": VOC}, "voc"),
        ({"images/a.jpg": "x", "labels/a.txt": "0 0 0 1 1"}, "yolo"),
        ({"images/train/a.jpg": "x", "labels/train/a.txt": "0 0 0 1 1"}, "yolo"),
        ({"images/a.jpg": "x", "masks/a.png": "x"}, "masks"),
        ({"annotations/instances_train.json": json.dumps(COCO), "train/a.jpg": "x", "val/a.jpg": "x"}, "coco"),
        ({"train/a.jpg": "x", "train/a.xml": VOC, "test_small/b.jpg": "x", "test_small/b.xml": VOC}, "voc"),
        (
            {"train/images/a.jpg": "x", "train/labels/a.txt": "", "valid/images/b.jpg": "x", "valid/labels/b.txt": ""},
            "yolo",
        ),
    ],
)
def test_folders_of_boxes_and_masks(tmp_path, files, kind):
    for name, content in files.items():
        write(tmp_path / name, content)
    assert kind_and_task(tmp_path) == (kind, forms.TASKS[kind])


def test_class_folders(tmp_path):
    assert kind_and_task(class_folders(tmp_path / "a", ".jpg")) == ("image_folders", "image_classification")
    assert kind_and_task(class_folders(tmp_path / "b", ".txt")) == ("text_folders", "text_classification")
    assert kind_and_task(class_folders(tmp_path / "c", ".TIFF")) == ("image_folders", "image_classification")


def test_majority_of_endings(tmp_path):
    root = class_folders(tmp_path, ".jpg", count=8)
    write(root / "cat" / "notes.txt")
    assert kind_and_task(root)[0] == "image_folders"


def test_mixture_is_an_error(tmp_path):
    root = class_folders(tmp_path, ".jpg")
    class_folders(root, ".txt", classes=("cat",), count=2)
    class_folders(root, ".txt", classes=("dog",), count=2)
    with pytest.raises(DataError, match="6 images and 4 texts") as caught:
        forms.infer(str(root))
    assert str(root / "cat" / "0.txt") in str(caught.value)


def test_class_of_the_other_kind_is_a_mixture(tmp_path):
    root = class_folders(tmp_path, ".jpg", count=50)
    class_folders(root, ".txt", classes=("notes",), count=1)
    with pytest.raises(DataError, match="mixed"):
        forms.infer(str(root))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val", "test"), ("train", "validation", "test")),
        (("train", "valid", "test_rain"), ("train", "validation", "test_rain")),
        (("Train", "Validation"), ("train", "validation")),
        (("train", "test", "extra"), ("train", "test")),
        (("test",), ("test",)),
        (("valid", "invalid"), ("all",)),
        (("test", "control"), ("all",)),
    ],
)
def test_split_folders(tmp_path, names, expected):
    for name in names:
        if expected == ("all",):
            class_folders(tmp_path, ".png", classes=(name,))
        else:
            class_folders(tmp_path / name, ".png")
    assert tuple(forms.infer(str(tmp_path)).sections) == expected


def test_train_can_be_a_class(tmp_path):
    root = class_folders(tmp_path, ".png", classes=("train", "bus", "car"))
    assert tuple(forms.infer(str(root)).sections) == ("all",)


def test_split_files(tmp_path):
    for name in ("train.csv", "val.csv", "test.jsonl", "test_rain.tsv"):
        text = (
            '{"text": "a", "label": 1}'
            if name.endswith("jsonl")
            else "text\tlabel\n"
            if name.endswith("tsv")
            else "text,label\n"
        )
        write(tmp_path / name, text)
    form = forms.infer(str(tmp_path))
    assert {k: v.name for k, v in form.sections.items()} == {
        "train": "train.csv",
        "validation": "val.csv",
        "test": "test.jsonl",
        "test_rain": "test_rain.tsv",
    }


def test_squads_own_file_names(tmp_path):
    for name in ("train-v2.0.json", "dev-v2.0.json"):
        write(tmp_path / name, SQUAD)
    assert tuple(forms.infer(str(tmp_path)).sections) == ("train", "validation")


def test_tables_of_images_beside_their_folders(tmp_path):
    class_folders(tmp_path / "train", ".png")
    write(tmp_path / "train.csv", "path,label\ntrain/cat/0.png,a\n")
    assert forms.infer(str(tmp_path)).kind == "table"


def test_two_spellings_of_a_split(tmp_path):
    for name in ("train", "val", "validation"):
        class_folders(tmp_path / name, ".png")
    with pytest.raises(DataError, match="two validation splits"):
        forms.infer(str(tmp_path))


def test_empty_split_folder(tmp_path):
    class_folders(tmp_path / "train", ".png")
    (tmp_path / "test").mkdir()
    form = forms.infer(str(tmp_path))
    assert (tuple(form.sections), form.empty) == (("train",), ("test",))


def test_splits_of_different_forms(tmp_path):
    class_folders(tmp_path / "train", ".png")
    class_folders(tmp_path / "test", ".txt")
    with pytest.raises(DataError, match=r"train: image_folders.*test: text_folders"):
        forms.infer(str(tmp_path))


def test_several_tables(tmp_path):
    write(tmp_path / "a.csv", "text,label\n")
    write(tmp_path / "b.csv", "text,label\n")
    with pytest.raises(DataError, match="several tables") as caught:
        forms.infer(str(tmp_path))
    assert "b.csv" in str(caught.value)


def test_a_table_that_does_not_fit_beside_class_folders(tmp_path):
    class_folders(tmp_path, ".png")
    write(tmp_path / "sizes.csv", "name,bytes\n")
    assert forms.infer(str(tmp_path)).kind == "image_folders"


def test_nothing_there(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="Did you mean .*photos"):
        forms.infer(str(tmp_path / "photo"))
    with pytest.raises(DataError, match="is empty"):
        forms.infer(str(tmp_path / "photos"))


def test_photos_without_folders(tmp_path):
    write(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="1 images without a label"):
        forms.infer(str(tmp_path))


def test_sample_is_its_folder(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "trees", ".png")
    asked = []
    monkeypatch.setattr(forms.samples, "data_folder", lambda name: asked.append(name) or root)
    form = forms.infer("sample:trees")
    assert (form.kind, form.root, asked) == ("image_folders", root, ["trees"])

"""Where labelled examples come from: folders, tables, SQuAD, TensorFlow Datasets, datasets from Python."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_tfds
from PIL import Image

from keras_transfer.data import files, sources, tfds_sets
from keras_transfer.data.findings import DataError, Raw
from keras_transfer.recipe import DataSpec


def load(source: object, task: str = "", **spec: object) -> Raw:
    return sources.load(DataSpec(source=str(source), **spec), task)


def refused(source: object, task: str = "", **spec: object) -> str:
    with pytest.raises(DataError) as caught:
        load(source, task, **spec)
    return str(caught.value)


def kinds(raw: Raw) -> list[str]:
    return [finding.kind for finding in raw.findings]


def labels(records) -> list[object]:
    return [record.fields["label"] for record in records]


def table(path: Path, *rows: tuple[object, ...], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


# --- class folders


def test_images_in_natural_order_with_stable_ids(make_photo_folder, tmp_path):
    root = make_photo_folder(tmp_path / "photos", count=11)
    for path in root.rglob("*.png"):
        path.rename(path.with_name(f"x{int(path.stem)}.png"))
    raw = load(root)
    assert list(raw) == ["all"]
    assert [r.id for r in raw["all"]] == [f"{label}/x{n}.png" for label in ("blue", "red") for n in range(11)]
    first = raw["all"][0]
    assert (first.fields["label"], os.path.isabs(first.fields["image"])) == ("blue", True)
    assert first.content == files.hash_file(first.fields["image"]) and len(first.content) == 16


def test_natural_order():
    names = ["img10", "img2", "img1", "b", "a", "img01"]
    assert sorted(names, key=files.natural_key) == ["a", "b", "img01", "img1", "img2", "img10"]


def test_splits_of_folders(make_photo_folder, tmp_path):
    for split in ("train", "val", "test", "test_rain"):
        make_photo_folder(tmp_path / "photos", classes=(f"{split}/red", f"{split}/blue"), count=2)
    raw = load(tmp_path / "photos")
    assert {name: len(records) for name, records in raw.items()} == {
        "train": 4,
        "validation": 4,
        "test": 4,
        "test_rain": 4,
    }
    assert raw["validation"][0].id == "val/blue/000.png"


def test_what_is_ignored(make_photo_folder, tmp_path):
    root = make_photo_folder(tmp_path / "photos", count=2)
    for name in (".DS_Store", "Thumbs.db", "._000.png", ".hidden/a.png"):
        text(root / "red" / name, b"x")
    (root / ".git").mkdir()
    os.symlink(root, root / "red" / "loop")
    raw = load(root)
    assert [record.id for record in raw["all"]] == [f"{label}/00{n}.png" for label in ("blue", "red") for n in (0, 1)]
    assert raw.findings == []


def test_symlink_loops_end(tmp_path):
    text(tmp_path / "a" / "x.txt", "x")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    os.symlink(tmp_path / "a", tmp_path / "a" / "self")
    assert [path.name for path in files.walk(tmp_path)] == ["x.txt"]


def test_odd_files_are_found(make_photo_folder, tmp_path):
    root = make_photo_folder(tmp_path / "photos", count=6)
    text(root / "red" / "notes.txt", "x")
    text(root / "red" / "scan.pdf", "x")
    text(root / "loose.png", "x")
    raw = load(root)
    assert len(raw["all"]) == 12
    odd, outside = raw.findings
    assert (odd.kind, odd.count) == ("odd_ending", 2) and str(root / "red" / "notes.txt") in odd.files
    assert (outside.kind, outside.files) == ("outside_folders", (str(root / "loose.png"),))


def test_empty_class(make_photo_folder, tmp_path):
    root = make_photo_folder(tmp_path / "photos", count=2)
    (root / "green").mkdir()
    message = refused(root)
    assert "empty_class" in message and "'green'" in message and str(root / "green") in message
    kept = load(root, bad_files="skip")
    assert sorted(set(labels(kept["all"]))) == ["blue", "red"], "skipping goes on with the other classes"
    (finding,) = kept.findings
    assert (finding.kind, finding.severity) == ("empty_class", "warn") and "left out" in finding.message


def test_no_separator_in_folder_names(make_photo_folder, tmp_path):
    root = make_photo_folder(tmp_path / "photos", classes=("red|big", "blue"), count=1)
    assert labels(load(root)["all"]) == ["blue", "red|big"]
    assert labels(load(root, label_separator="|")["all"]) == [("blue",), ("red", "big")]


def test_texts_in_class_folders(tmp_path):
    text(tmp_path / "pos" / "1.txt", "\ufefffine\r\nfilm ☃")
    text(tmp_path / "neg" / "1.txt", "bad")
    raw = load(tmp_path)
    assert [r.fields for r in raw["all"]] == [
        {"text": "bad", "label": "neg"},
        {"text": "fine\r\nfilm ☃", "label": "pos"},
    ]


def test_undecodable_texts(tmp_path):
    for number in range(25):
        text(tmp_path / "pos" / f"{number}.txt", "ok\nschön".encode("latin-1"))
    text(tmp_path / "neg" / "1.txt", "bad")
    message = refused(tmp_path)
    assert f"{tmp_path / 'pos' / '0.txt'}:2" in message
    assert "and 5 more" in message and "UTF-8" in message and "iconv -f cp1252" in message
    raw = load(tmp_path, bad_files="skip")
    assert len(raw["all"]) == 1 and raw.findings[0].severity == "warn" and raw.findings[0].count == 25


def test_a_folder_is_not_for_another_task(make_photo_folder, tmp_path):
    message = refused(make_photo_folder(tmp_path / "photos"), task="text_classification")
    assert "image_classification" in message and "'text_classification'" in message


def test_a_form_without_loader_is_named(tmp_path):
    text(tmp_path / "x.json", '{"images": [], "annotations": []}')
    text(tmp_path / "y.xml", "<annotation></annotation>")
    message = refused(tmp_path / "x.json", task="image_classification")
    assert "coco" in message and "Set task to object_detection or semantic_segmentation" in message
    assert "Set task to object_detection" in refused(tmp_path / "y.xml", task="image_classification")


# --- groups


def test_group_pattern(make_photo_folder, tmp_path):
    root = make_photo_folder(tmp_path / "p9" / "photos", count=2)
    for path in root.rglob("*.png"):
        path.rename(path.with_name(f"p{int(path.stem) + 1}_x.png"))
    raw = load(root, group_pattern=r"p(\d+)")
    assert [r.group for r in raw["all"]] == ["1", "2", "1", "2"], "of the path inside the source, not p9"


def test_group_pattern_that_fits_nothing(photo_folder):
    assert "fits no path" in refused(photo_folder, group_pattern=r"patient(\d+)")
    assert "2 groups; expected one" in refused(photo_folder, group_pattern=r"(.)(.)")
    assert "group_pattern '('" in refused(photo_folder, group_pattern="(")
    raw = load(photo_folder, group_pattern=r"red/(\d+)")
    assert kinds(raw) == ["group_pattern"] and raw.findings[0].severity == "warn"


def test_group_column(tmp_path):
    path = table(tmp_path / "a.csv", ("text", "label", "group"), ("a", "x", "g1"), ("b", "y", ""))
    assert [r.group for r in load(path)["all"]] == ["g1", ""]
    path = table(tmp_path / "b.csv", ("text", "label", "doc"), ("a", "x", "7"))
    assert load(path, group_column="doc")["all"][0].group == "7"


# --- tables


def test_csv_of_texts(tmp_path):
    rows = [("text", "label", "text_pair"), ('say "hi",\nthen go', "a", "p"), ("", "b", ""), (" x ", "a", "q")]
    raw = load(table(tmp_path / "t.csv", *rows))
    first, second, third = raw["all"]
    assert first.fields == {"text": 'say "hi",\nthen go', "text_pair": "p", "label": "a"}
    assert (first.id, first.where) == ("t.csv:2", f"{tmp_path / 't.csv'}:2")
    assert (second.id, third.id) == ("t.csv:4", "t.csv:5"), "lines of the file, not rows"
    assert third.fields["text"] == " x "


def test_semicolons_and_byte_order_mark(tmp_path):
    path = text(tmp_path / "t.csv", "\ufeffText;Label\r\nja, gut;1\r\n\r\nnein;0\r\n")
    raw = load(path)
    assert [r.fields for r in raw["all"]] == [{"text": "ja, gut", "label": "1"}, {"text": "nein", "label": "0"}]
    assert [r.id for r in raw["all"]] == ["t.csv:2", "t.csv:4"]


def test_tsv_with_and_without_quoting(tmp_path):
    path = text(tmp_path / "a.tsv", 'text\tlabel\n"a\ttab"\t1\n')
    assert load(path)["all"][0].fields["text"] == "a\ttab"
    path = text(tmp_path / "b.tsv", 'text\tlabel\n" he said\t1\n"so" it goes\t0\n')
    assert [r.fields["text"] for r in load(path)["all"]] == ['" he said', '"so" it goes']


def test_long_cells(tmp_path):
    before = csv.field_size_limit()
    raw = load(table(tmp_path / "t.csv", ("text", "label"), ("x" * 300_000, "a")))
    assert len(raw["all"][0].fields["text"]) == 300_000
    assert csv.field_size_limit() == before


def test_undecodable_csv(tmp_path):
    path = text(tmp_path / "t.csv", "text,label\nfine,1\nschön,0\n".encode("cp1252"))
    message = refused(path, task="text_classification")
    assert f"{path}:3" in message and "0xf6" in message and "iconv -f cp1252 -t utf-8" in message


def test_ragged_rows(tmp_path):
    lines = ["text,label", "a,1", "b,c,1", "d", *("e,f,g" for _ in range(30)), "last,0"]
    path = text(tmp_path / "t.csv", "\n".join(lines))
    message = refused(path)
    assert "32 rows have not the 2 cells" in message
    assert f"{path}:3 (3 cells)" in message and f"{path}:4 (1 cells)" in message and "and 12 more" in message
    assert "quotes" in message
    raw = load(path, bad_files="skip")
    assert [r.fields["text"] for r in raw["all"]] == ["a", "last"]
    assert raw.findings[0].severity == "warn" and raw.findings[0].count == 32


def test_unclosed_quotation(tmp_path):
    path = text(tmp_path / "t.csv", 'text,label\nok,1\n"never closed,0\nmore,1\n')
    for bad_files in ("fail", "skip"):
        message = refused(path, bad_files=bad_files)
        assert f"{path}:3" in message and "quotation mark" in message


def test_missing_columns(tmp_path):
    path = table(tmp_path / "t.csv", ("review", "stars"), ("fine", "5"))
    message = refused(path, task="text_classification")
    assert "review,stars" in message and "--data.text_column" in message and "--data.label_column" in message
    raw = load(path, text_column="review", label_column="stars")
    assert raw["all"][0].fields == {"text": "fine", "label": "5"}


def test_missing_columns_in_one_split(tmp_path):
    table(tmp_path / "train.csv", ("text", "label"), ("a", "1"))
    table(tmp_path / "test.csv", ("text", "klass"), ("b", "1"))
    message = refused(tmp_path)
    assert "test.csv" in message and "klass" in message and "--data.label_column" in message


def test_column_named_twice(tmp_path):
    assert "label more than once" in refused(table(tmp_path / "t.csv", ("text", "label", "label"), ("a", "1", "2")))


def test_header_only_and_empty(tmp_path):
    assert load(table(tmp_path / "t.csv", ("text", "label"))) == {"all": []}
    assert "no columns" in refused(text(tmp_path / "e.csv", ""))


def test_rows_without_label(tmp_path):
    path = table(tmp_path / "t.csv", ("text", "label"), ("a", "1"), ("b", ""), ("c", "  "))
    message = refused(path)
    assert "unlabelled" in message and f"{path}:3" in message and f"{path}:4" in message
    assert len(load(path, bad_files="skip")["all"]) == 1


def test_several_labels(tmp_path):
    path = table(tmp_path / "t.csv", ("text", "label"), ("a", "x|y"), ("b", "x"), ("c", ""), ("d", "y | z | y"))
    assert labels(load(path)["all"]) == [("x", "y"), ("x",), (), ("y", "z")]
    single = table(tmp_path / "s.csv", ("text", "label"), ("a", "x|y"), ("b", "x"))
    assert labels(load(single, label_separator="")["all"]) == ["x|y", "x"]
    comma = table(tmp_path / "c.csv", ("text", "label"), ("a", "x,y"), ("b", "x|z"))
    assert labels(load(comma, label_separator=",")["all"]) == [("x", "y"), ("x|z",)]


def test_several_labels_in_one_split_only(tmp_path):
    table(tmp_path / "train.csv", ("text", "label"), ("a", "x|y"))
    table(tmp_path / "test.csv", ("text", "label"), ("b", "x"))
    assert labels(load(tmp_path)["test"]) == [("x",)]


def test_jsonl_labels_of_any_type(tmp_path):
    values = [1, 1.0, 2.5, True, False, "x y", ["a", "b"], []]
    path = text(tmp_path / "t.jsonl", "\n".join(json.dumps({"text": "t", "label": v}) for v in values) + "\n\n")
    expected = [("1",), ("1",), ("2.5",), ("true",), ("false",), ("x y",), ("a", "b"), ()]
    raw = load(path)
    assert labels(raw["all"]) == expected
    assert raw["all"][3].id == "t.jsonl:4"


def test_jsonl_faults(tmp_path):
    path = text(
        tmp_path / "t.jsonl", '{"text": "a", "label": 1}\n{"text": \n[1]\n{"text": {}, "label": 1}\n{"text": "b"}\n'
    )
    message = refused(path)
    assert f"{path}:2 (" in message and f"{path}:3 (expected an object. Received: list)" in message
    assert f"{path}:4" in message and f"{path}:5" in message, "all faults at once"
    assert len(load(path, bad_files="skip")["all"]) == 1


def test_separators_of_lines_inside_a_text(tmp_path):
    path = text(tmp_path / "t.jsonl", json.dumps({"text": "a\u2028b\x0cc", "label": 1}, ensure_ascii=False) + "\n")
    assert load(path)["all"][0].fields["text"] == "a\u2028b\x0cc"


def test_images_by_path(make_photo_folder, tmp_path):
    make_photo_folder(tmp_path / "data" / "photos", count=1)
    absolute = make_photo_folder(tmp_path / "elsewhere", classes=("green",), count=1) / "green" / "000.png"
    rows = [("path", "label"), ("photos/red/000.png", "r"), ("./photos/blue/000.png", "b"), (absolute, "g")]
    raw = load(table(tmp_path / "data" / "t.csv", *rows))
    assert labels(raw["all"]) == ["r", "b", "g"]
    assert [Path(r.fields["image"]).is_file() for r in raw["all"]] == [True] * 3
    assert raw["all"][0].content == files.hash_file(tmp_path / "data" / "photos" / "red" / "000.png")


def test_missing_images(make_photo_folder, tmp_path):
    make_photo_folder(tmp_path / "photos", count=1)
    rows = [("path", "label"), ("photos/red/000.png", "r"), *((f"photos/{n}.png", "b") for n in range(23)), ("", "b")]
    path = table(tmp_path / "t.csv", *rows)
    message = refused(path)
    assert "23 images that the table names do not exist" in message and "and 3 more" in message
    assert f"photos/0.png ({path}:3)" in message and f"{path}:26" in message
    assert "relative to the table's folder" in message
    assert len(load(path, bad_files="skip")["all"]) == 1


# --- question answering


def squad(*questions: dict, context: str = "Ana lives in Łódź. Ana is 7.") -> dict:
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(id: str, *answers: tuple[str, int], **more: object) -> dict:
    return {"id": id, "question": "who?", "answers": [{"text": t, "answer_start": s} for t, s in answers], **more}


def test_squad_json(tmp_path):
    content = squad(question("q1", ("Łódź", 13)), question("q2", is_impossible=True, plausible_answers=[{"text": "x"}]))
    raw = load(text(tmp_path / "s.json", json.dumps(content)))
    first, second = raw["all"]
    assert first.id == "q1" and first.fields["answers"] == [{"text": "Łódź", "answer_start": 13}]
    assert second.fields["answers"] == []
    assert "s.json" in first.where and "q1" in first.where


def test_answers_elsewhere_and_nowhere(tmp_path):
    content = squad(question("near", ("Ana", 15)), question("nowhere", ("Bob", 0)), question("fine", ("Ana", 0)))
    path = text(tmp_path / "s.json", json.dumps(content))
    message = refused(path)
    assert (
        "answer_outside_context" in message and "nowhere ('Bob')" in message and "near" not in message.split("Mend")[0]
    )
    raw = load(path, bad_files="skip")
    assert [r.fields["answers"][0]["answer_start"] for r in raw["all"]] == [19, 0]
    assert kinds(raw) == ["answer_outside_context", "answer_moved"]


def test_malformed_squad(tmp_path):
    assert "s.json:2" in refused(text(tmp_path / "s.json", '{"data": [{"paragraphs":\n [}]}'))
    assert "data[0].paragraphs[0] has no text 'context'" in refused(
        text(tmp_path / "t.json", json.dumps({"data": [{"paragraphs": [{"qas": []}]}]}))
    )


def test_question_ids_of_two_splits(tmp_path):
    for name in ("train", "test"):
        text(tmp_path / f"{name}.json", json.dumps(squad(question("q", ("Ana", 0)), question("q", ("Ana", 0)))))
    raw = load(tmp_path)
    ids = [r.id for records in raw.values() for r in records]
    assert len(set(ids)) == 4 and ids[0] == "q"


@pytest.mark.parametrize(
    "answers",
    [
        '[{"text": "Oslo", "answer_start": 3}]',
        '{"text": ["Oslo"], "answer_start": [3]}',
        '["Oslo"]',
        "Oslo",
    ],
)
def test_answers_in_a_column(tmp_path, answers):
    path = table(
        tmp_path / "q.csv", ("question", "context", "answers"), ("where?", "in Oslo", answers), ("when?", "in Oslo", "")
    )
    first, second = load(path)["all"]
    assert first.fields["answers"] == [{"text": "Oslo", "answer_start": 3}]
    assert second.fields["answers"] == []
    assert first.id == "q.csv:2"


def test_malformed_answers(tmp_path):
    path = text(tmp_path / "q.jsonl", '{"question": "a", "context": "b", "answers": [{"text": 1}]}\n')
    message = refused(path)
    assert "malformed_answers" in message and f"{path}:1" in message


# --- TensorFlow Datasets


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "tfds"


@pytest.mark.parametrize(
    ("name", "sizes", "names"),
    [
        ("tf_flowers", {"train": 40}, ["dandelion", "daisy"]),
        ("oxford_iiit_pet", {"train": 74, "test": 37}, ["Abyssinian", "american_bulldog"]),
        ("cats_vs_dogs", {"train": 24}, ["cat", "dog"]),
    ],
)
def test_tfds_images(tfds_folder, name, sizes, names):
    tiny_tfds.write_tiny(tfds_folder, name, size=32)
    raw = load(f"tfds:{name}")
    assert {split: len(records) for split, records in raw.items()} == sizes
    assert labels(raw["train"])[:2] == names
    first = raw["train"][0]
    assert first.id == "train/000000" and first.content == files.hash_file(first.fields["image"])
    with Image.open(first.fields["image"]) as image:
        assert image.size == (32, 32)
    written = Path(first.fields["image"]).stat().st_mtime_ns
    assert load(f"tfds:{name}") == raw and Path(first.fields["image"]).stat().st_mtime_ns == written, "written once"


def test_tfds_cache_belongs_to_one_preparation(tfds_folder, monkeypatch):
    tiny_tfds.write_tiny(tfds_folder, "cats_vs_dogs", size=32)
    before = load("tfds:cats_vs_dogs")["train"]
    other = tfds_folder.parent / "other"
    monkeypatch.setenv("TFDS_DATA_DIR", str(other))
    tiny_tfds.write_tiny(other, "cats_vs_dogs", size=32, change=lambda rows: rows["train"].pop())
    after = load("tfds:cats_vs_dogs")["train"]
    assert (len(before), len(after)) == (24, 23)


def test_tfds_texts(tfds_folder):
    tiny_tfds.write_tiny(tfds_folder, "imdb_reviews")
    raw = load("tfds:imdb_reviews")
    assert {split: len(records) for split, records in raw.items()} == {"train": 24, "test": 12}
    assert raw["train"][1].fields == {"text": "a warm and clever film, says critic 1-1", "label": "pos"}
    assert kinds(raw) == ["split_left_out"] and "unsupervised" in raw.findings[0].message


def test_tfds_unlabelled_split_is_dropped(tfds_folder):
    tiny_tfds.write_tiny(tfds_folder, "glue/sst2")
    raw = load("tfds:glue/sst2")
    assert list(raw) == ["train", "validation"]
    assert labels(raw["train"])[:2] == ["negative", "positive"]
    assert kinds(raw) == ["unlabelled"] and "'test'" in raw.findings[0].message


def test_tfds_training_copies_of_the_test_are_dropped(tfds_folder):
    def change(rows):
        rows["train"][3]["text"] = rows["test"][0]["text"]

    tiny_tfds.write_tiny(tfds_folder, "imdb_reviews", change=change)
    raw = load("tfds:imdb_reviews")
    assert (len(raw["train"]), len(raw["test"])) == (23, 12)
    assert "same_in_two_splits" in kinds(raw)


def test_tfds_questions(tfds_folder):
    tiny_tfds.write_tiny(tfds_folder, "squad")
    raw = load("tfds:squad")
    assert {split: len(records) for split, records in raw.items()} == {"train": 30, "validation": 10}
    fields = raw["train"][3].fields
    [answer] = fields["answers"]
    assert fields["context"][answer["answer_start"] :].startswith(answer["text"])
    assert raw["train"][3].id == "train0003"


def test_tfds_not_prepared_and_no_network(tfds_folder, monkeypatch):
    def nowhere(*_args, **_kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(tfds_sets.urllib.request, "getproxies", dict)
    monkeypatch.setattr(tfds_sets.socket, "getaddrinfo", nowhere)
    started = time.monotonic()
    message = refused("tfds:tf_flowers")
    assert time.monotonic() - started < 20
    assert "not prepared" in message and "no network" in message
    assert "TFDS_DATA_DIR" in message and str(tfds_folder / "tf_flowers") in message


def test_tfds_unknown_name(tfds_folder):
    message = refused("tfds:tf_flower")
    assert "no such data set" in message and "tfds:tf_flowers" in message


# --- datasets from Python


def datasets():
    tf = pytest.importorskip("tensorflow")
    return tf, tf.data.Dataset.from_tensor_slices


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 24, 3), np.uint8)


def pixels(record) -> np.ndarray:
    with Image.open(record.fields["image"]) as image:
        return np.asarray(image)


def as_set(records) -> set[tuple[bytes, str]]:
    return {(pixels(record).tobytes(), record.fields["label"]) for record in records}


@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize("form", ["uint8", "float", "fractions", "bytes"])
def test_dataset_of_images(form, batch):
    tf, slices = datasets()
    values = {"uint8": IMAGES, "float": IMAGES.astype(np.float32), "fractions": (IMAGES / 255).astype(np.float32)}
    if form == "bytes":
        encoded = []
        for image in IMAGES:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            encoded.append(buffer.getvalue())
        values["bytes"] = encoded
    dataset = slices((values[form], [0, 1, 0, 1, 0, 1]))
    source, raw = sources.from_datasets(dataset.batch(batch) if batch else dataset, label_names=["cat", "dog"])
    assert source.startswith("python:") and list(raw) == ["all"]
    assert as_set(raw["all"]) == {(image.tobytes(), ("cat", "dog")[i % 2]) for i, image in enumerate(IMAGES)}
    assert kinds(raw) == (["pixel_range"] if form == "fractions" else [])


def test_dataset_order_makes_no_difference_and_files_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    tf, slices = datasets()
    dataset = slices((IMAGES, [0, 1, 2, 0, 1, 2]))
    _, raw = sources.from_datasets({"train": dataset, "test": dataset.take(1)})
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    _, again = sources.from_datasets({"train": dataset.shuffle(6, seed=1), "test": dataset.take(1)})
    assert [r.id for r in raw["train"]] == [r.id for r in again["train"]]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == stamps and len(stamps) == 6
    assert labels(raw["train"]) == labels(again["train"])
    assert len({r.id for r in (*raw["train"], *raw["test"])}) == 7


def test_dataset_of_grey_images_and_twins():
    tf, slices = datasets()
    grey = np.repeat(IMAGES[:1, :, :, :1], 3, axis=0)
    _, raw = sources.from_datasets(slices((grey, ["a", "b", "a"])))
    assert len({r.id for r in raw["all"]}) == 3 and len({r.content for r in raw["all"]}) == 1
    assert pixels(raw["all"][0]).shape == (20, 24)


@pytest.mark.parametrize("batch", [0, 2])
def test_dataset_of_texts(batch):
    tf, slices = datasets()
    dataset = slices({"text": ["fine", "schön", "BM bad"], "label": [True, False, True]})
    _, raw = sources.from_datasets(dataset.batch(batch) if batch else dataset)
    assert {(r.fields["text"], r.fields["label"]) for r in raw["all"]} == {
        ("fine", "true"),
        ("schön", "false"),
        ("BM bad", "true"),
    }


def test_dataset_of_label_vectors():
    tf, slices = datasets()
    eye = np.eye(3, dtype=np.float32)[[0, 2, 1]]
    _, raw = sources.from_datasets(slices((["a", "b", "c"], eye)), label_names=["x", "y", "z"])
    assert {(r.fields["text"], r.fields["label"]) for r in raw["all"]} == {("a", "x"), ("b", "z"), ("c", "y")}
    many = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    _, raw = sources.from_datasets(slices((["a", "b", "c"], many)), label_names=["x", "y", "z"])
    assert {(r.fields["text"], r.fields["label"]) for r in raw["all"]} == {("a", ("x", "y")), ("b", ()), ("c", ("z",))}


def test_dataset_faults():
    tf, slices = datasets()

    def fault(given, **more) -> str:
        with pytest.raises(DataError) as caught:
            sources.from_datasets(given, **more)
        return str(caught.value)

    pair = slices((IMAGES, [0] * 6))
    assert "never ends" in fault(pair.repeat())
    assert "each once. Received: 'dev'" in fault({"dev": pair})
    assert "Received: list" in fault([1])
    assert "weights of examples" in fault(slices((IMAGES, [0] * 6, [1.0] * 6)))
    assert "0 to 255" in fault(slices(((IMAGES / 127.5 - 1).astype(np.float32), [0] * 6)))
    assert "label 5 has no name" in fault(slices((IMAGES, [5] * 6)), label_names=["a"])
    assert "shape" in fault(slices((np.zeros((2, 3, 4, 5, 6), np.uint8), [0, 1])))


# --- samples


@pytest.mark.samples
@pytest.mark.parametrize(
    ("name", "task"),
    [("movie_reviews", "text_classification"), ("countries", "question_answering"), ("digits", "image_classification")],
)
def test_samples_are_read(name, task):
    raw = load(f"sample:{name}")
    assert raw["train"] and raw["test"]
    assert ("question" in raw["train"][0].fields) == (task == "question_answering")

"""Bad data: `check` names it with the mend, `fit` refuses it, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runs import NO_FINE_TUNING, SMALL, UNPUBLISHED, run_here
from conftest import draw_photo, write_photo_folder

ROWS = [(f"{name}/{number:03d}.png", name) for name in ("red", "blue") for number in range(4)]


def photos(folder: Path, *classes: str, count: int = 4, **options: object) -> Path:
    return write_photo_folder(folder / "data", classes or ("red", "blue"), count, 40, **options)  # type: ignore[arg-type]


def truncated(folder: Path) -> Path:
    data = photos(folder, ending=".jpg")
    content = (data / "red/000.jpg").read_bytes()
    (data / "red/000.jpg").write_bytes(content[: len(content) // 2])
    return data


def empty(folder: Path) -> Path:
    data = photos(folder)
    (data / "red/000.png").write_bytes(b"")
    return data


def text_named_jpg(folder: Path) -> Path:
    data = photos(folder)
    (data / "red/000.jpg").write_text("hello")
    return data


def palette_bmp(folder: Path) -> Path:
    data = photos(folder)
    draw_photo(0, 2).convert("P").save(data / "red/x.bmp")
    return data


def tiff(folder: Path) -> Path:
    data = photos(folder)
    draw_photo(0, 2).save(data / "red/x.tif")
    return data


def animated_webp(folder: Path) -> Path:
    data = photos(folder)
    draw_photo(0, 2).save(data / "red/x.webp", save_all=True, append_images=[draw_photo(1, 2)], duration=100)
    return data


def one_class(folder: Path) -> Path:
    return photos(folder, "red")


def untrained_class(folder: Path) -> Path:
    return photos(folder, "train/red", "train/blue", "test/red", "test/blue", "test/green")


def leaked(folder: Path) -> Path:
    data = photos(folder, "train/red", "train/blue", "test/red", "test/blue")
    shutil.copy(data / "train/red/000.png", data / "test/red/copy.png")
    return data


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    data = photos(folder)
    (data / name).write_text(text, encoding="utf-8")
    return data / name


def lines(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{path},{label}\n" for path, label in rows)


def wrong_columns(folder: Path) -> Path:
    return table(folder, "file,class\n" + lines(ROWS))


def ragged(folder: Path) -> Path:
    return table(folder, "path,label\n" + lines(ROWS[:3]) + "red/003.png\nblue/000.png,blue,more\n" + lines(ROWS[5:]))


def missing_file(folder: Path) -> Path:
    return table(folder, "path,label\n" + lines(ROWS) + "red/absent.png,red\n")


def unlabelled(folder: Path) -> Path:
    return table(folder, "path,label\n" + lines(ROWS[:-1]) + "blue/003.png,\n")


def broken_json(folder: Path) -> Path:
    good = "".join(f'{{"path": "{path}", "label": "{label}"}}\n' for path, label in ROWS)
    return table(folder, good + '{"path": oops\n', "labels.jsonl")


def header_only(folder: Path) -> Path:
    return table(folder, "path,label\n")


def empty_table(folder: Path) -> Path:
    return table(folder, "")


def empty_folder(folder: Path) -> Path:
    (folder / "data").mkdir()
    return folder / "data"


def nowhere(folder: Path) -> Path:
    return folder / "nowhere"


# How the data is made; the finding's kind; what its files or its message name; a word of the mend or the reason.
STOPS: list[tuple[Callable[[Path], Path], str, str, str]] = [
    (truncated, "unreadable_file", "red/000.jpg", "copy the file again"),
    (empty, "unreadable_file", "red/000.png", "empty"),
    (text_named_jpg, "unreadable_file", "red/000.jpg", "text and not an image"),
    (palette_bmp, "unreadable_file", "red/x.bmp", "Convert it to PNG"),
    (tiff, "unreadable_file", "red/x.tif", "Convert it to PNG"),
    (animated_webp, "unreadable_file", "red/x.webp", "animated"),
    (one_class, "too_few_classes", "red", "another class"),
    (untrained_class, "class_without_training", "green", "Add training examples"),
    (leaked, "same_in_two_splits", "test/red/copy.png", "Remove them from one of the two"),
    (wrong_columns, "unknown_form", "file,class", "--data.path_column"),
    (ragged, "malformed_table", "labels.csv:5", "labels.csv:6"),
    (missing_file, "missing_file", "labels.csv:10", "absent.png"),
    (unlabelled, "unlabelled", "labels.csv:9", "Fill in"),
    (broken_json, "malformed_table", "labels.jsonl:9", "one JSON object a line"),
    (header_only, "no_examples", "labelled examples", "rows below its header"),
    (empty_table, "unknown_form", "labels.csv", "names its columns"),
    (empty_folder, "unknown_form", "is empty", "Expected"),
    (nowhere, "unknown_form", "nowhere", "Expected"),
]


@pytest.mark.parametrize(("make", "kind", "named", "mend"), STOPS, ids=[case[0].__name__ for case in STOPS])
def test_what_stops_is_named_with_its_mend_and_nothing_is_written(tmp_path, make, kind, named, mend):
    data = make(tmp_path)
    (tmp_path / "here").mkdir()
    checked = run_here(["check", data, "--json"], tmp_path / "here")
    assert checked.status == 1 and checked.json["data"] == str(data)
    stops = [finding for finding in checked.json["findings"] if finding["severity"] == "stop"]
    assert [finding["kind"] for finding in stops] == [kind]
    assert set(stops[0]) >= {"kind", "severity", "files", "count", "mend"}
    assert stops[0]["count"] >= len(stops[0]["files"]) and stops[0]["mend"]
    shown = f"{stops[0]['message']} {stops[0]['files']} {stops[0]['mend']}"
    assert named in shown and mend in shown

    refused = run_here(["fit", data, *SMALL], tmp_path / "here")
    assert refused.status == 1 and refused.out == "" and "Traceback" not in refused.err
    assert named in refused.err and mend in refused.err
    assert list((tmp_path / "here").iterdir()) == []


def unbalanced(folder: Path) -> Path:
    write_photo_folder(folder / "data", ("red",), 10, 40)
    return write_photo_folder(folder / "data", ("blue",), 2, 40)


def tiny(folder: Path) -> Path:
    return write_photo_folder(folder / "data", ("red", "blue"), 3, 20)


def huge(folder: Path) -> Path:
    from PIL import Image

    data = photos(folder)
    Image.new("L", (10_000, 5_001)).save(data / "red/wide.png")
    return data


def wrong_ending(folder: Path) -> Path:
    data = photos(folder)
    (data / "red/000.png").rename(data / "red/000.jpg")
    return data


def other_files(folder: Path) -> Path:
    data = photos(folder)
    (data / "red/notes.txt").write_text("taken in spring")
    return data


def near_duplicate(folder: Path) -> Path:
    data = photos(folder)
    photo = draw_photo(0, 2, 200, 7)
    photo.save(data / "red/one.jpg", quality=95)
    photo.save(data / "red/two.jpg", quality=80)
    return data


WARNINGS: list[tuple[Callable[[Path], Path], str, str]] = [
    (unbalanced, "imbalance", "'red' has 10"),
    (tiny, "tiny_input", "20×20"),
    (huge, "huge_input", "red/wide.png"),
    (wrong_ending, "wrong_ending", "red/000.jpg"),
    (other_files, "odd_ending", "red/notes.txt"),
    (near_duplicate, "near_duplicate", "red/two.jpg"),
]


@pytest.mark.parametrize(("make", "kind", "named"), WARNINGS, ids=[case[0].__name__ for case in WARNINGS])
def test_what_warns_does_not_stop(tmp_path, make, kind, named):
    checked = run_here(["check", make(tmp_path), "--json"], tmp_path)
    assert checked.status == 0, checked.out
    finding = next(found for found in checked.json["findings"] if found["kind"] == kind)
    assert finding["severity"] == "warn" and named in f"{finding['message']} {finding['files']}" and finding["mend"]


def test_bad_files_can_be_left_out(tmp_path):
    data = photos(tmp_path, count=8)
    (data / "red/000.png").write_bytes(b"")
    skip = ["--data.bad_files", "skip"]
    checked = run_here(["check", data, *skip, "--json"], tmp_path)
    assert checked.status == 0
    found = next(finding for finding in checked.json["findings"] if finding["kind"] == "unreadable_file")
    assert found["severity"] == "warn" and found["count"] == 1
    done = run_here(["fit", data, *SMALL, *NO_FINE_TUNING, *UNPUBLISHED, *skip, "--json"], tmp_path)
    assert done.status == 0, done.err
    assert "red/000.png" in done.err
    scored = run_here(["evaluate", done.json["run"], data, *skip, "--json"], tmp_path)
    assert scored.json["examples"] == 15
    refused = run_here(["evaluate", done.json["run"], data, "--data.bad_files", "fail"], tmp_path)
    assert refused.status == 1 and "red/000.png" in refused.err

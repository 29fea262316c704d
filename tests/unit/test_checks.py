"""What is wrong with data: each fault is found, named by file, with its severity and its mend."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_transfer.data import checks, image_scan, near_duplicates, sources, splits
from keras_transfer.data.checks import DataError, Finding
from keras_transfer.data.findings import Raw
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec


def look(source: object, **spec: object) -> dict[str, Finding]:
    """Findings of a source by kind."""
    _, found = checks.check_source(DataSpec(source=str(source), **spec))
    assert len({finding.kind for finding in found}) == len(found), f"a kind twice: {[f.kind for f in found]}"
    return {finding.kind: finding for finding in found}


def text_records(*rows: tuple[str, object], prefix: str = "t") -> list[Record]:
    from keras_transfer.data.files import hash_text

    return [
        Record(f"{prefix}{n}", {"text": t, "label": label}, f"{prefix}.csv:{n}", hash_text(t))
        for n, (t, label) in enumerate(rows)
    ]


def kinds(raw: dict, **spec: object) -> dict[str, Finding]:
    return {finding.kind: finding for finding in checks.check(Raw(raw), DataSpec(**spec))}


def scene(seed: int, size: int = 96) -> Image.Image:
    """A smooth random picture, as unlike others as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def scenes(root: Path, classes=("cat", "dog"), count: int = 6, start: int = 0, ending: str = ".png") -> Path:
    for number, label in enumerate(classes):
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            scene(start + 100 * number + index).save(root / label / f"{index}{ending}")
    return root


def test_sound_data_has_no_findings(tmp_path):
    assert look(scenes(tmp_path)) == {}


# --- files


@pytest.fixture
def bad_files(tmp_path) -> Path:
    """Sound photos, and one file of each kind that the decoder fails on."""
    root = scenes(tmp_path / "photos")
    buffer = io.BytesIO()
    scene(50, 200).save(buffer, "JPEG")
    jpeg = bytearray(buffer.getvalue())
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "cat" / "page.png").write_bytes(b"<html>not found</html>")
    (root / "cat" / "short.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    buffer = io.BytesIO()
    scene(51).save(buffer, "PNG")
    png = bytearray(buffer.getvalue())
    png[len(png) // 2] ^= 0xFF  # the header and the end are sound: only decoding shows it
    (root / "dog" / "broken.png").write_bytes(png)
    scene(52).save(root / "dog" / "scan.tiff")
    scene(53).quantize(16).save(root / "dog" / "palette.bmp")
    return root


BAD = ("empty.jpg", "page.png", "short.jpg", "broken.png", "scan.tiff", "palette.bmp")


def test_unreadable_files(bad_files):
    found = look(bad_files)["unreadable_file"]
    assert (found.severity, found.count, len(found.files)) == ("stop", 6, 6)
    for name in BAD:
        assert any(name in line for line in found.files), name
    assert "--data.bad_files skip" in found.mend
    assert any("broken.png: TensorFlow cannot decode it: " in line for line in found.files)


def test_unreadable_files_are_found_again_from_the_cache(bad_files, monkeypatch):
    first = look(bad_files)["unreadable_file"]
    monkeypatch.setattr(
        image_scan, "_decode_all", lambda contents, paths: iter(()) if not contents else pytest.fail(str(paths))
    )
    assert look(bad_files)["unreadable_file"] == first


def test_unreadable_files_are_skipped(bad_files):
    spec = DataSpec(source=str(bad_files), bad_files="skip")
    raw, noticed = checks.clean(sources.load(spec), spec)
    assert {Path(r.id).name for r in raw["all"]}.isdisjoint(BAD) and len(raw["all"]) == 12
    [found] = noticed
    assert (found.kind, found.severity, found.count) == ("unreadable_file", "warn", 6)
    assert checks.check(raw, spec) == []
    assert look(bad_files, bad_files="skip")["unreadable_file"].severity == "warn"


def test_at_fail_nothing_is_left_out(bad_files):
    spec = DataSpec(source=str(bad_files))
    raw, noticed = checks.clean(sources.load(spec), spec)
    assert len(raw["all"]) == 18 and [(f.kind, f.severity) for f in noticed] == [("unreadable_file", "stop")]
    with pytest.raises(DataError, match="unreadable_file: 6 images") as caught:
        checks.refuse([*noticed, *checks.check(splits.split(raw, spec), spec)])
    assert len(caught.value.findings) == 1, "said once"
    assert "scan.tiff: TensorFlow cannot decode TIFF" in str(caught.value) and "Mend: " in str(caught.value)


def test_skipping_can_empty_a_class(tmp_path):
    root = scenes(tmp_path)
    shutil.rmtree(root / "dog")
    (root / "dog").mkdir()
    (root / "dog" / "a.png").write_bytes(b"x")
    assert look(root, bad_files="skip")["too_few_classes"].severity == "stop"


def test_lists_are_cut_at_twenty(tmp_path):
    root = scenes(tmp_path)
    for number in range(23):
        (root / "cat" / f"bad{number}.png").write_bytes(b"bad%d" % number)
    found = look(root)["unreadable_file"]
    assert (found.count, len(found.files)) == (23, 20)
    assert "and 3 more" in str(found)


def test_files_without_a_hash_are_looked_at_by_path(tmp_path):
    scenes(tmp_path, ("cat",), 2)
    paths = [tmp_path / "cat" / "0.png", tmp_path / "cat" / "1.png", tmp_path / "cat" / "2.png"]
    records = [Record(path.name, {"image": str(path)}, str(path)) for path in paths]
    [found] = checks.check(Raw({"test": records}), DataSpec())
    assert found.files == (f"{paths[2]}: there is no such file. Correct the path. Received: {str(paths[2])!r}",)


def test_sizes_and_endings(tmp_path, monkeypatch):
    root = scenes(tmp_path)
    scene(60, 20).save(root / "cat" / "tiny.png")
    scene(61).save(root / "cat" / "jpeg.png", "JPEG")
    scene(62, 300).save(root / "cat" / "huge.png")
    (root / "cat" / "readme.md").write_text("x")
    monkeypatch.setattr(checks, "HUGE_PIXELS", 50_000)
    found = look(root)
    assert found["tiny_input"].files == (f"{root / 'cat' / 'tiny.png'}: 20×20",)
    assert found["wrong_ending"].files == (f"{root / 'cat' / 'jpeg.png'}: JPEG",)
    assert found["huge_input"].files == (f"{root / 'cat' / 'huge.png'}: 300×300",)
    assert found["odd_ending"].files == (str(root / "cat" / "readme.md"),)
    assert {finding.severity for finding in found.values()} == {"warn"}


# --- classes


def test_classes(tmp_path):
    scenes(tmp_path / "train", ("cat", "dog"), 8)
    scenes(tmp_path / "train", ("owl",), 1, start=700)
    scenes(tmp_path / "test", ("cat", "fox"), 2, start=800)
    found = look(tmp_path)
    assert found["class_without_training"].severity == "stop" and "'fox'" in found["class_without_training"].message
    assert found["class_without_training"].files == tuple(str(tmp_path / "test" / "fox" / f"{n}.png") for n in range(2))
    assert "owl" in found["single_example_class"].files[0] and found["single_example_class"].severity == "warn"
    assert "'cat'" in found["imbalance"].message or "'dog'" in found["imbalance"].message
    assert found["imbalance"].severity == "warn"


def test_one_class(tmp_path):
    found = look(scenes(tmp_path, ("cat",)))
    assert found["too_few_classes"].severity == "stop" and "cat" in found["too_few_classes"].message


def test_empty_class_stops_and_the_rest_is_looked_at_too(tmp_path):
    root = scenes(tmp_path)
    (root / "owl").mkdir()
    (root / "cat" / "bad.png").write_bytes(b"bad")
    found = look(root)
    assert found["empty_class"].severity == found["unreadable_file"].severity == "stop"


def test_similar_labels():
    rows = [(f"text number {n}", label) for n, label in enumerate(["Cat", "cat ", "cat", "dog"] * 3)]
    found = kinds({"all": text_records(*rows)})
    assert found["similar_labels"].severity == "warn"
    assert "'Cat', 'cat', 'cat '" in found["similar_labels"].message
    assert "t.csv:0 ('Cat')" in found["similar_labels"].files


def test_balanced_multi_label_is_fine():
    rows = [(f"text number {n}", labels) for n, labels in enumerate([("a",), ("a", "b"), ()] * 3)]
    assert kinds({"all": text_records(*rows)}) == {}


# --- duplicates


def test_same_image_in_train_and_test(tmp_path):
    for number, split in enumerate(("train", "validation", "test", "test_rain")):
        scenes(tmp_path / split, start=1000 * number)
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "copy.png")
    shutil.copy(tmp_path / "train" / "cat" / "1.png", tmp_path / "train" / "dog" / "twin.png")
    _, found = checks.check_source(DataSpec(source=str(tmp_path)))
    by_kind = {finding.kind: finding for finding in found}
    assert set(by_kind) == {"same_in_two_splits", "duplicate", "conflicting_labels"}
    same = by_kind["same_in_two_splits"]
    assert (same.severity, same.count) == ("stop", 1) and found[0] == same, "stops come first"
    assert same.files == (f"{tmp_path / 'train' / 'cat' / '0.png'} = {tmp_path / 'test' / 'cat' / 'copy.png'}",)
    assert "(cat)" in by_kind["conflicting_labels"].files[0] and "(dog)" in by_kind["conflicting_labels"].files[0]
    assert by_kind["duplicate"].severity == by_kind["conflicting_labels"].severity == "warn"


@pytest.mark.parametrize(
    ("one", "other", "severity"),
    [
        ("train", "test", "stop"),
        ("train", "test_rain", "stop"),
        ("train", "validation", "warn"),
        ("validation", "test", "warn"),
        ("test", "test_rain", None),
    ],
)
def test_same_text_in_two_splits(one, other, severity):
    raw = {
        "train": text_records(("alpha beta", "a"), ("gamma delta", "b"), prefix="train"),
        "validation": text_records(("epsilon", "a"), ("zeta", "b"), prefix="validation"),
        "test": text_records(("eta", "a"), ("theta", "b"), prefix="test"),
        "test_rain": text_records(("iota", "a"), ("kappa", "b"), prefix="rain"),
    }
    raw[one] += text_records(("the same\n text", "a"), prefix=f"{one}+")
    raw[other] += text_records(("the  same text ", "a"), prefix=f"{other}+")
    found = kinds(raw).get("same_in_two_splits")
    assert (found.severity if found else None) == severity


def test_near_duplicates_of_images(tmp_path):
    scenes(tmp_path / "train", count=8)
    scenes(tmp_path / "test", count=8, start=5000)
    scene(0, 400).save(tmp_path / "train" / "cat" / "large.png")
    scene(1).save(tmp_path / "train" / "cat" / "pressed.jpg", quality=40)
    scene(2).save(tmp_path / "test" / "cat" / "pressed.jpg", quality=40)
    found = look(tmp_path)
    assert {kind: finding.severity for kind, finding in found.items()} == {
        "near_duplicate": "warn",
        "near_duplicate_in_two_splits": "warn",
    }
    assert found["near_duplicate"].count == 2 and found["near_duplicate_in_two_splits"].count == 1
    assert "large.png" in " ".join(found["near_duplicate"].files)


def test_near_duplicates_of_texts():
    rows = [("Great film!", "a"), ("great   film", "a"), ("Great films", "b"), ("!!!", "b"), ("???", "a"), ("x y", "b")]
    found = kinds({"all": text_records(*rows)})
    assert found["near_duplicate"].count == 1 and found["near_duplicate"].files == ("t.csv:1 ~ t.csv:0",)


def test_near_duplicates_are_found_without_comparing_all():
    random = np.random.default_rng(0)
    thumbnails = random.integers(0, 256, (40_000, 8, 9), np.uint8)
    changed = thumbnails[:50].astype(np.int16) + random.integers(-2, 3, (50, 8, 9))
    both = np.concatenate([thumbnails, np.clip(changed, 0, 255).astype(np.uint8)])
    started = time.process_time()
    groups = near_duplicates.group_images(both)
    assert time.process_time() - started < 20
    differs = np.bitwise_count(near_duplicates.hashes(both[:50]) ^ near_duplicates.hashes(both[40_000:]))
    assert groups == [[n, 40_000 + n] for n in np.flatnonzero(differs <= near_duplicates.BITS)]
    assert len(groups) > 40


def test_plain_images_do_not_take_forever():
    thumbnails = np.full((20_000, 8, 9), 7, np.uint8)
    thumbnails += (np.arange(20_000) % 16 * 12).astype(np.uint8)[:, None, None]
    started = time.process_time()
    groups = near_duplicates.group_images(thumbnails)
    assert time.process_time() - started < 20
    assert sorted(map(len, groups)) == [1250] * 16, "equal ones are together, other greys apart"


@pytest.mark.parametrize("shape", [0, 1])
def test_no_near_duplicates_of_nothing(shape):
    assert near_duplicates.group_images(np.zeros((shape, 8, 9), np.uint8)) == []


# --- texts, questions, tables


def test_empty_texts():
    raw = {"all": text_records(("", "a"), ("  \n", "b"), ("fine text", "a"), ("other text", "b"))}
    found = kinds(raw)["empty_text"]
    assert (found.severity, found.count, found.files[0]) == ("stop", 2, "t.csv:0: empty text")
    raw, noticed = checks.clean(Raw(raw), DataSpec(bad_files="skip"))
    assert len(raw["all"]) == 2 and noticed[0].severity == "warn"


def test_sizes_of_texts():
    found = kinds({"all": text_records(("x", "a"), ("long " * 5_000, "b"), ("fine text", "a"), ("other text", "b"))})
    assert found["tiny_input"].files == ("t.csv:0: 1 characters",)
    assert found["huge_input"].files == ("t.csv:1: 25,000 characters",)


def test_questions_about_contexts_of_the_training():
    def ask(split: str, question: str) -> Record:
        fields = {"question": question, "context": "Ana is 7 years old.", "answers": []}
        return Record(f"{split}{question}", fields, split, question.encode())

    found = kinds({"train": [ask("train", "who?")], "test": [ask("test", "how old?")]})
    assert found["same_context"].severity == "warn" and set(found) == {"same_context"}
    assert "empty question" in kinds({"train": [ask("train", " ")]})["empty_text"].files[0]


def test_malformed_table_is_a_finding(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\nfine,1\nodd\nBad,0\n,0\nmore,1\n")
    found = look(path)
    assert found["malformed_table"].severity == "stop" and found["malformed_table"].files == (f"{path}:3 (1 cells)",)
    assert found["empty_text"].files == (f"{path}:5: empty text",), "the rest is looked at too"


def test_what_cannot_be_read_at_all_is_a_finding(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("review,stars\nfine,1\n")
    raw, found = checks.check_source(DataSpec(source=str(path)))
    assert raw is None and [f.kind for f in found] == ["unknown_form"] and "--data.text_column" in found[0].mend
    _, found = checks.check_source(DataSpec(source=str(tmp_path / "nowhere")))
    assert found[0].severity == "stop" and "nowhere" in found[0].message
    _, found = checks.check_source(DataSpec(source="sample:nothing_like_it"))
    assert found[0].severity == "stop" and "nothing_like_it" in found[0].message


def test_finding_as_json(bad_files):
    found = look(bad_files)["unreadable_file"].to_json()
    assert set(found) == {"kind", "severity", "message", "files", "count", "mend"}
    assert isinstance(found["files"], list)


def test_refuse_says_all_at_once():
    warn = Finding("imbalance", "warn", "unbalanced")
    checks.refuse([warn])
    with pytest.raises(DataError) as caught:
        checks.refuse([warn, Finding("a", "stop", "first", ("f",), 1, "do x"), Finding("b", "stop", "second")])
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "a: first" in message and "      f" in message and "Mend: do x" in message and "b: second" in message
    assert "unbalanced" not in message


@pytest.mark.samples
def test_no_sample_is_refused():
    for name in ("movie_reviews", "countries", "digits"):
        _, found = checks.check_source(DataSpec(source=f"sample:{name}"))
        assert [str(f) for f in found if f.severity == "stop"] == [], name

"""The commands, as a new user types them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runs import NO_FINE_TUNING, SMALL, UNPUBLISHED, Outcome, run_here, run_process, start
from conftest import write_photo_folder

CLASSES = ("dark blue", "grün", "red")
TRAIN, TEST = 10, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `photos/`, which has a test split, and names that need care."""
    folder = tmp_path_factory.mktemp("user")
    for split, count in (("train", TRAIN), ("test", TEST)):
        write_photo_folder(folder / "photos", [f"{split}/{name}" for name in CLASSES], count, 40)
    return folder


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Outcome:
    """`fit --json` with both phases, in a process of its own."""
    words = ["fit", "photos", *SMALL, "--fine_tune.epochs", "2", "--fine_tune.trainable", "last:1", "--json"]
    done = run_process(words, folder)
    assert done.status == 0, done.err
    return done


def test_fit_prints_one_json_object(fitted, folder):
    assert fitted.out.count("\n") == 1
    found = fitted.json
    assert set(found) >= {
        "run", "saved_model", "task", "backbone", "trainable", "metrics", "metrics_by_split", "seconds"
    }  # fmt: skip
    assert (found["task"], found["backbone"]) == ("image_classification", "mobilenet")
    assert found["trainable"]["head"] == 1024 * 3 + 3
    assert found["trainable"]["fine_tune"] > found["trainable"]["head"]
    assert found["metrics"] == found["metrics_by_split"]["test"]
    assert {"accuracy", "macro_f1"} <= set(found["metrics"])
    assert set(found["seconds"]) == {"data", "cache", "head", "fine_tune", "evaluate", "export", "total"}
    assert found["seconds"]["total"] >= sum(found["seconds"][part] for part in ("data", "fine_tune", "export"))
    assert (folder / found["saved_model"]).samefile(folder / "saved_models/photos/1")
    assert {"recipe.json", "run.json", "history.jsonl", "log.txt", "model.keras"} <= set(
        os.listdir(folder / found["run"])
    )


def test_fit_says_what_it_does_without_noise(fitted):
    assert "reading photos" in fitted.err and "fine_tune epoch 2" in fitted.err
    assert not re.search(r"oneDNN|cuda|InitializeLog|Traceback", fitted.err, re.IGNORECASE)


def test_predict_answers_in_order_and_goes_on_after_a_bad_input(fitted, folder):
    (folder / "notes.jpg").write_text("no photo")
    inputs = ["photos/test/red/001.png", "notes.jpg", "absent.png", "photos/test/dark blue", "-"]
    done = run_here(["predict", fitted.json["run"], *inputs], folder, "photos/test/grün/000.png\n\n")
    assert done.status == 1
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["input"] for row in rows] == [
        *inputs[:3], *(f"photos/test/dark blue/{n:03d}.png" for n in range(TEST)), "photos/test/grün/000.png"
    ]  # fmt: skip
    assert [number for number, row in enumerate(rows) if "error" in row] == [1, 2]
    assert "text and not an image" in rows[1]["error"] and "no such file" in rows[2]["error"]
    good = rows[3]
    assert good["label"] in CLASSES and set(good["probabilities"]) == set(CLASSES)
    assert good["probability"] == max(good["probabilities"].values())
    assert "2 of 8 inputs" in done.err


def test_a_run_and_its_export_answer_alike(fitted, folder):
    rows = []
    for model, output in ((fitted.json["run"], "a.jsonl"), ("saved_models/photos", "b.csv")):
        done = run_here(["predict", model, "photos/test", "--output", output, "--json"], folder)
        assert done.status == 0, done.err
        assert done.json == {"inputs": 3 * TEST, "errors": 0, "output": output}
    rows = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    with (folder / "b.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [row["input"] for row in table]
    assert [row["label"] for row in rows] == [row["label"] for row in table]
    for name in CLASSES:
        ours = [row["probabilities"][name] for row in rows]
        np.testing.assert_allclose(ours, [float(row[f"probabilities.{name}"]) for row in table], atol=1e-4)


@pytest.mark.parametrize("model", ["run", "saved_model"])
def test_evaluate_gives_the_metrics_of_fit(fitted, folder, model):
    done = run_here(["evaluate", fitted.json[model], "photos", "--json"], folder)
    assert done.status == 0, done.err
    found = done.json
    assert {name: found[name] for name in ("data", "split", "examples")} == {
        "data": "photos", "split": "test", "examples": 3 * TEST
    }  # fmt: skip
    assert Path(found["model"]) == Path(fitted.json[model])
    for name in ("accuracy", "macro_f1", "log_loss", "auroc"):
        assert found["metrics"][name] == pytest.approx(fitted.json["metrics"][name], abs=1e-4)


def test_evaluate_takes_a_split_and_names_those_there_are(fitted, folder):
    model = fitted.json["saved_model"]
    every = run_here(["evaluate", model, "photos", "--split", "all", "--json"], folder).json
    assert every["examples"] == 3 * (TRAIN + TEST)
    shown = run_here(["evaluate", model, "photos", "--split", "train"], folder)
    assert shown.status == 0 and shown.out.startswith("train: 30 examples  accuracy ")
    wrong = run_here(["evaluate", model, "photos", "--split", "tests"], folder)
    assert wrong.status == 1 and "one of test, train, all" in wrong.err.replace("train, test", "test, train")


def test_export_publishes_the_next_version(fitted, folder):
    run = fitted.json["run"]
    done = run_here(["export", run, "--to", "saved_models", "--json"], folder)
    assert (done.status, done.json) == (0, {"run": run, "saved_model": "saved_models/photos/2"}), done.err
    assert sorted(entry.name for entry in (folder / "saved_models/photos").iterdir()) == ["1", "2"]


def test_runs_stand_side_by_side(fitted, folder):
    shown = run_here(["runs"], folder)
    assert fitted.json["run"] in shown.out and "accuracy" in shown.out and "done" in shown.out
    listed = run_here(["runs", "--json"], folder).json["runs"]
    mine = next(row for row in listed if row["run"] == fitted.json["run"])
    assert mine["metrics"] == fitted.json["metrics"] and mine["status"] == "done"
    assert run_here(["runs", "--directory", "none"], folder).out.strip() == "no runs in none"


def test_a_finished_run_is_not_resumed(fitted, folder):
    done = run_here(["fit", "--resume", fitted.json["run"]], folder)
    assert done.status == 1 and "one that is done" in done.err


def test_an_earlier_run_is_a_backbone_for_new_classes(fitted, folder):
    write_photo_folder(folder / "shapes", ("one", "two"), 8, 40)
    words = ["fit", "shapes", "--backbone.name", f"run:{fitted.json['run']}", *NO_FINE_TUNING, *UNPUBLISHED, "--json"]
    done = run_here(words, folder)
    assert done.status == 0, done.err
    assert done.json["trainable"] == {"head": 1024 * 2 + 2, "fine_tune": 0}
    assert done.json["saved_model"] is None


def test_a_recipe_file_is_its_script(folder):
    recipe = """
        from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
        from keras_transfer.cli import fit_script

        recipe = Recipe(
            data=DataSpec(source="photos"),
            backbone=BackboneSpec(name="mobilenet", weights="none", image_size=32),
            fine_tune=Phase(epochs=3, trainable="last:1"),
        )

        if __name__ == "__main__":
            raise SystemExit(fit_script())
        """
    (folder / "mine.py").write_text("\n".join(line[8:] for line in recipe.splitlines()))
    fields = ["--head.epochs=0", "--fine_tune.trainable", "last:2", "--dry-run", "--json"]
    script = subprocess.run([sys.executable, "mine.py", *fields], cwd=folder, capture_output=True, text=True)
    assert script.returncode == 0, script.stderr
    command = run_here(["fit", *fields, "mine.py"], folder)
    assert command.status == 0, command.err
    plan = json.loads(script.stdout)["plan"]
    assert plan == command.json["plan"]
    assert not any(line.startswith("head") for line in plan) and any("last:2, 3 epochs" in line for line in plan)


def test_a_blown_up_fine_tuning_keeps_the_head(folder):
    # Rates below 1e38 leave the logits finite: the backbone ends in a ReLU6.
    blown = ["--fine_tune.epochs", "2", "--fine_tune.learning_rate", "1e38", "--fine_tune.trainable", "last:1"]
    done = run_here(
        ["fit", "photos", *SMALL, *UNPUBLISHED, "--name", "blown", "--data.batch_size", "4", *blown], folder
    )
    assert done.status == 0, done.err
    assert "not a number" in done.err and "fine_tune.learning_rate" in done.err
    (run,) = (folder / "runs").glob("blown-*")
    before = json.loads((run / "history.jsonl").read_text().splitlines()[0])
    kept = json.loads((run / "run.json").read_text())["metrics_by_split"]["validation"]
    assert before["epoch"] == 0 and kept["loss"] == pytest.approx(before["val_loss"], rel=1e-3)
    # Without --json the outcome is for a person.
    assert re.search(r"^test: accuracy [\d.]+ \(", done.out, re.MULTILINE) and "{" not in done.out
    assert re.search(r"^run runs/blown-\S+ \(\d+ s\)$", done.out, re.MULTILINE)


@pytest.mark.parametrize("shown", [True, False], ids=["json", "text"])
def test_dry_run_says_what_it_takes_and_writes_nothing(folder, tmp_path, shown):
    words = ["fit", folder / "photos", *SMALL, "--dry-run", *(["--json"] if shown else [])]
    done = run_here(words, tmp_path)
    assert done.status == 0 and list(tmp_path.iterdir()) == []
    assert re.search(r"about [\d.]+ minutes, \d+ MB of cache, \d+ MB", done.err)
    if shown:
        assert done.json["minutes"] > 0 and done.json["megabytes"] > 0
        assert any("fine_tune" in line for line in done.json["plan"])


def test_warnings_before_a_training_are_short(folder, tmp_path):
    photos = write_photo_folder(tmp_path / "tiny", ("a", "b"), 6, 20)
    done = run_here(["fit", photos, *SMALL, "--dry-run"], tmp_path)
    assert done.err.count("20×20") == 3 and "and 9 more" in done.err
    assert run_here(["check", photos], tmp_path).out.count("20×20") == 12


def test_several_labels_for_a_photo(folder, tmp_path):
    photos = write_photo_folder(tmp_path, ("red", "blue"), 10, 40)
    rows = [(f"{name}/{number:03d}.png", name) for name in ("red", "blue") for number in range(10)]
    table = "".join(f"{path},{label}{'|1' if n % 2 else ''}\n" for n, (path, label) in enumerate(rows))
    (photos / "labels.csv").write_text("path,label\n" + table)
    done = run_here(["fit", "labels.csv", *SMALL, *NO_FINE_TUNING, *UNPUBLISHED, "--json"], photos)
    assert done.status == 0, done.err
    answers = run_here(["predict", done.json["run"], "red"], photos)
    rows = [json.loads(line) for line in answers.out.splitlines()]
    assert len(rows) == 10
    for row in rows:
        assert set(row["probabilities"]) == {"1", "blue", "red"} and set(row["labels"]) <= {"1", "blue", "red"}
    assert any("red" in row["labels"] for row in rows)


def test_labels_that_are_numbers_without_a_head_phase(folder, tmp_path):
    photos = write_photo_folder(tmp_path, ("red", "blue"), 8, 40)
    lines = [
        json.dumps({"path": f"{n}/{i:03d}.png", "label": k}) for k, n in ((2, "red"), (10, "blue")) for i in range(8)
    ]
    (photos / "labels.jsonl").write_text("\n".join(lines))
    phases = ["--head.epochs", "0", "--fine_tune.epochs", "1", "--fine_tune.trainable", "last:1"]
    done = run_here(["fit", "labels.jsonl", *SMALL, *phases, *UNPUBLISHED, "--json"], photos)
    assert done.status == 0, done.err
    assert done.json["trainable"]["head"] == 0 < done.json["trainable"]["fine_tune"]
    answer = json.loads(run_here(["predict", done.json["run"], "red/000.png"], photos).out)
    assert list(answer["probabilities"]) == ["2", "10"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("fitt photos", "did you mean fit?"),
        ("nonsense", "no such command"),
        ("fit", "expected SOURCE"),
        ("fit photos --head.epoch 1", "did you mean head.epochs?"),
        ("fit --head.epoch 1 photos", "did you mean head.epochs?"),
        ("fit photos --hed.epochs 1 --fine_tune.epochs x", "fine_tune.epochs: expected a whole number"),
        ("fit photos --head.solver exct", "did you mean exact?"),
        ("fit photos --head.epochs", "--head.epochs: expected a value"),
        ("fit photos --dry-runn", "did you mean --dry-run?"),
        ("fit photos --head.epochs 0 --fine_tune.epochs 0", "at least one above 0"),
        ("fit photos --task image_clasification", "Did you mean image_classification?"),
        ("fit photos --resume runs/x", "--resume"),
        ("predict model", "INPUT"),
        ("predict model photo.png --output answers.txt", ".csv or .jsonl"),
        ("runs --unknown", "unrecognized"),
        ("layers", "backbone"),
    ],
)
def test_wrong_usage_exits_2(folder, words, named):
    done = run_here(words.split(), folder)
    assert done.status == 2 and named in done.err and done.out == "" and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("fit nowhere", "nowhere"),
        ("fit recipes/none.py", "recipes/none.py"),
        ("fit --resume nowhere", "keras-transfer runs"),
        ("fit photos --backbone.name mobilenet_v9", "mobilenet_v2"),
        ("evaluate nowhere photos", "nowhere: expected a run folder"),
        ("predict photos photos", "photos: expected an exported version"),
        ("export nowhere", "keras-transfer runs"),
        ("cache --clear nonsense", "nonsense"),
        ("layers mobilenet_v9", "mobilenet_v2"),
    ],
)
def test_a_failure_is_one_message_and_exit_1(folder, words, named):
    done = run_here([*words.split(), "--json"], folder)
    assert done.status == 1 and named in done.err and "Traceback" not in done.err
    assert named in done.json["error"]
    assert "Traceback" in run_here([*words.split(), "--debug"], folder).err


def test_the_process_exits_with_the_status(folder):
    assert run_process(["fit", "photos", "--head.epoch", "1"], folder).status == 2
    assert run_process(["export", "nowhere"], folder).status == 1
    assert run_process(["--version"], folder).status == 0


def test_lists(folder):
    found = run_here(["tasks", "--json"], folder).json["tasks"]
    assert "image_classification" in [row["task"] for row in found]
    found = run_here(["samples", "--json"], folder).json["samples"]
    assert {"efficientnet_lite0", "trees"} <= {row["sample"] for row in found}
    found = run_here(["backbones", "--json"], folder).json["backbones"]
    assert {"resnet50", "vgg16", "inception_v3"} <= {row["name"] for row in found}
    for command in ("tasks", "samples", "backbones"):
        lines = run_here([command], folder).out.splitlines()
        assert len(lines) > 1 and not any("…" in line for line in lines)


def test_layers_count_what_a_toggle_trains(folder):
    found = run_here(["layers", "mobilenet_v2", "--trainable", "last:2", "--json"], folder).json
    blocks = {block["last"]: block for block in found["blocks"]}
    assert found["trainable"] == {"toggle": "last:2", "parameters": blocks[2]["trains"]}
    shown = run_here(["layers", "mobilenet_v2"], folder).out
    assert "from:stem" in shown and "block_1_expand" in shown and "last:N" in shown


def test_cache_is_listed_and_cleared(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    (tmp_path / "features").mkdir()
    (tmp_path / "features/some.bin").write_bytes(bytes(3_000_000))
    (tmp_path / "checks").mkdir()
    found = run_here(["cache", "--json"], folder).json
    assert found["caches"] == [{"kind": "checks", "megabytes": 0.0}, {"kind": "features", "megabytes": 3.0}]
    assert "features" in run_here(["cache"], folder).out
    run_here(["cache", "--clear", "features"], folder)
    assert not (tmp_path / "features").exists() and (tmp_path / "checks").exists()
    assert run_here(["cache", "--clear", "--json"], folder).json["caches"] == []


def test_a_reader_that_goes_away_is_no_fault(folder):
    process = start(["backbones"], folder)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) in (0, 1) and "Traceback" not in err and "fault" not in err


def test_closed_streams_are_no_fault(folder):
    command = f"'{sys.executable}' -m keras_transfer predict model - <&-"
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and "standard input is closed" in done.stderr
    command = f"'{sys.executable}' -m keras_transfer tasks >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=folder).returncode == 0


@pytest.mark.samples
def test_photos_and_nothing_else_use_the_sample_weights(tmp_path):
    from keras_transfer.samples import data_folder

    trees, photos = data_folder("trees"), tmp_path / "photos"
    for name in sorted(path.name for path in (trees / "train").iterdir()):
        (photos / name).mkdir(parents=True)
        for photo in sorted((trees / "train" / name).iterdir())[:30]:
            shutil.copy(photo, photos / name)
    done = run_process(["fit", "photos", "--backbone.image_size", "96", "--fine_tune.epochs", "1", "--json"], tmp_path)
    assert done.status == 0, done.err
    assert done.json["backbone"] == "efficientnet_lite0" and done.json["metrics"]["accuracy"] >= 0.6
    photo = next(photos.rglob("*.png"), None) or next(photos.rglob("*.jpg"))
    reader = """
import sys, tensorflow as tf
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = answer(image_bytes=tf.constant([open(sys.argv[2], "rb").read()]))
assert not any(name.startswith("keras_transfer") for name in sys.modules)
print(found["label"].numpy()[0].decode(), float(found["probability"][0]))
"""
    words = [sys.executable, "-c", reader, done.json["saved_model"], str(photo)]
    plain = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    label, probability = plain.stdout.split()
    ours = json.loads(run_here(["predict", done.json["run"], photo], tmp_path).out)
    assert ours["label"] == label and ours["probability"] == pytest.approx(float(probability), abs=1e-4)

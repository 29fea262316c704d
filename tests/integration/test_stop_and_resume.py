"""A training that is stopped keeps its state, says how to go on, and ends as if it had not been stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from cli_runs import SMALL, UNPUBLISHED, Outcome, run_here, start
from conftest import write_photo_folder

TRAINING = [
    "fit", "photos", *SMALL, *UNPUBLISHED, "--data.augment", "light", "--data.batch_size", "8", "--json",
    "--fine_tune.epochs", "8", "--fine_tune.learning_rate", "1e-3", "--fine_tune.trainable", "last:1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    for split, count in (("train", 12), ("validation", 6), ("test", 6)):
        write_photo_folder(folder / "photos", [f"{split}/{name}" for name in ("red", "blue")], count, 40)
    return folder


@pytest.fixture(scope="module")
def stopped(folder: Path) -> Outcome:
    """SIGTERM in the third epoch of fine-tuning."""
    process = start(TRAINING, folder)
    said = stop_at(process, "fine_tune epoch 2", signal.SIGTERM)
    assert process.stdout is not None
    out = process.stdout.read()
    return Outcome(process.wait(timeout=120), out, said)


def stop_at(process: subprocess.Popen[str], text: str, number: int) -> str:
    """Sends a signal once a line of standard error holds the text; all of standard error."""
    assert process.stderr is not None
    said, sent = [], False
    for line in process.stderr:
        said.append(line)
        if text in line and not sent:
            os.kill(process.pid, number)
            sent = True
    assert sent, "".join(said)
    return "".join(said)


def test_sigterm_ends_with_143_and_says_how_to_go_on(stopped, folder):
    assert stopped.status == 143, stopped.err
    run = stopped.json["run"]
    assert f"keras-transfer fit --resume {run}" in stopped.err and "Traceback" not in stopped.err
    assert (folder / run / "checkpoints/fine_tune.npz").exists()
    assert json.loads((folder / run / "run.json").read_text())["status"] == "interrupted"
    assert "fine_tune epoch 8" not in stopped.err
    # The best weights so far answer already.
    answer = run_here(["predict", run, "photos/test/red/000.png"], folder)
    assert answer.status == 0 and json.loads(answer.out)["label"] in ("red", "blue")


def test_changed_data_is_not_resumed(stopped, folder):
    photo = folder / "photos/train/red/000.png"
    content = photo.read_bytes()
    photo.unlink()
    try:
        refused = run_here(["fit", "--resume", stopped.json["run"]], folder)
    finally:
        photo.write_bytes(content)
    assert refused.status == 1 and "the data that it was started with" in refused.err


def test_a_resumed_training_ends_as_one_that_was_not_stopped(stopped, folder):
    run = stopped.json["run"]
    fields = run_here(["fit", "--resume", run, "--head.epochs", "1"], folder)
    assert fields.status == 2 and "own recipe" in fields.err
    resumed = run_here(["fit", "--resume", run, "--json"], folder)
    assert resumed.status == 0, resumed.err
    assert "going on after epoch" in resumed.err and "fine_tune epoch 1:" not in resumed.err
    assert resumed.json["run"] == run
    whole = run_here(TRAINING, folder)
    assert whole.status == 0, whole.err
    assert resumed.json["trainable"] == whole.json["trainable"]
    for split in ("validation", "test"):
        ours, theirs = resumed.json["metrics_by_split"][split], whole.json["metrics_by_split"][split]
        for name in ("accuracy", "log_loss", "macro_f1"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4)
    histories = [
        [
            row["val_loss"]
            for row in map(json.loads, (folder / found.json["run"] / "history.jsonl").read_text().splitlines())
        ]
        for found in (resumed, whole)
    ]
    assert len(histories[0]) == 9
    assert histories[0] == pytest.approx(histories[1], rel=1e-3, abs=1e-4)


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    reason="the shell ignores Ctrl-C here, as for a job in the background",
)
def test_ctrl_c_ends_with_130(folder):
    process = start(TRAINING, folder)
    said = stop_at(process, "run runs/", signal.SIGINT)
    assert process.wait(timeout=120) == 130, said
    assert "keras-transfer fit --resume runs/" in said and "Traceback" not in said

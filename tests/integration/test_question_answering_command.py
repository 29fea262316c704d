"""Question answering through the real command, offline: an encoder and a decoder, from training to answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_texts
import tiny_tfds

RECIPES = Path(__file__).parents[2] / "recipes"
WRITE = {"squad_bert": tiny_texts.write_bert, "squad_gpt2": tiny_texts.write_gpt2}


def run(words: list[str], folder: Path, lines: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "TFDS_DATA_DIR": str(folder / "tfds")}
    command = [sys.executable, "-m", "keras_transfer", *words]
    return subprocess.run(command, cwd=folder, env=environment, input=lines, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITE)
def test_a_recipe_trains_publishes_and_answers_offline(name: str, tmp_path):
    tiny_tfds.write_tiny(tmp_path / "tfds", "squad")
    preset = WRITE[name](tmp_path / "preset")
    small = ["--backbone.name", str(preset), "--backbone.sequence_length", "40", "--fine_tune.epochs", "1"]
    done = run(["fit", str(RECIPES / f"{name}.py"), "--json", *small], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["task"] == "question_answering" and result["trainable"]["head"] == 0
    assert 0 <= result["metrics"]["exact_match"] <= result["metrics"]["f1"] <= 1

    long = "Nothing is said here. " * 40 + "The café 😀 in Ångström was opened."
    asked = [{"question": "Where was the café opened?", "context": long}, {"question": "And nothing?", "context": "?"}]
    lines = "".join(json.dumps(line) + "\n" for line in asked) + "no json\n"
    for model in (result["saved_model"], result["run"]):
        done = run(["predict", model, "-"], tmp_path, lines)
        assert done.returncode == 1, done.stderr[-3000:]
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row.get("question") for row in rows] == [asked[0]["question"], asked[1]["question"], None]
        assert rows[0]["answer"] == long[rows[0]["start"] : rows[0]["end"]] != ""
        assert 0 <= rows[0]["score"] <= 1 and rows[0]["n_best"][0]["answer"] == rows[0]["answer"]
        assert "error" in rows[2]

    squad = {"data": [{"title": "t", "paragraphs": [{"context": "The café in Quito was opened.", "qas": []}]}]}
    answers = [{"text": "Quito", "answer_start": 12}]
    squad["data"][0]["paragraphs"][0]["qas"] = [{"id": "1", "question": "Where?", "answers": answers}]
    (tmp_path / "own.json").write_text(json.dumps(squad), encoding="utf-8")
    done = run(["evaluate", result["saved_model"], "own.json", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["examples"], found["split"]) == (1, "all")
    assert 0 <= found["metrics"]["exact_match"] <= 1

"""The recipes of text classification through the real command, offline.

Those on TensorFlow Datasets names read a tiny valid set prepared under TFDS_DATA_DIR, with a tiny random preset folder
as backbone; the movie reviews are a part of the real sample, with real weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_texts
import tiny_tfds
from cli_runs import run_here, run_process

from keras_transfer.samples import data_folder

RECIPES = Path(__file__).parents[2] / "recipes"
OFFLINE = {
    "sst2_bert": ("glue/sst2", tiny_texts.write_bert),
    "imdb_gpt2": ("imdb_reviews", tiny_texts.write_gpt2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_a_recipe_trains_publishes_and_answers_offline(name: str, tmp_path):
    data, write = OFFLINE[name]
    tiny_tfds.write_tiny(tmp_path / "tfds", data)
    small = ["--backbone.name", str(write(tmp_path / "preset")), "--backbone.sequence_length", "16"]
    command = [sys.executable, "-m", "keras_transfer"]
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds")}
    words = [*command, "fit", str(RECIPES / f"{name}.py"), "--json", *small, "--fine_tune.epochs", "1"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["task"] == "text_classification" and result["trainable"]["fine_tune"]
    assert 0 <= result["metrics"]["accuracy"] <= 1
    rows = []
    for model in (result["saved_model"], result["run"]):
        words = [*command, "predict", model, "-"]
        done = subprocess.run(words, cwd=tmp_path, input="a fine film\nboring\n", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        rows.append([json.loads(line)["probability"] for line in done.stdout.splitlines()])
    assert rows[0] == pytest.approx(rows[1], abs=1e-4) and len(rows[0]) == 2


@pytest.mark.samples
def test_real_weights_tell_favourable_reviews_after_few_examples(tmp_path):
    sample, few = data_folder("movie_reviews"), tmp_path / "few"
    few.mkdir()
    for split, count in (("train", 300), ("test", 150)):
        lines = (sample / f"{split}.csv").read_text(encoding="utf-8").splitlines()
        (few / f"{split}.csv").write_text("\n".join(lines[: count + 1]) + "\n", encoding="utf-8")
    small = ["--data.source", "few", "--fine_tune.epochs", "1", "--json"]
    done = run_process(["fit", RECIPES / "movie_reviews_minilm.py", *small], tmp_path)
    assert done.status == 0, done.err
    assert done.json["trainable"]["fine_tune"] and done.json["metrics"]["accuracy"] >= 0.65
    reviews = "A moving, funny and beautifully acted film.\nA dull, lifeless waste of two hours.\n"
    said = run_here(["predict", done.json["saved_model"], "-"], tmp_path, reviews)
    assert said.status == 0, said.err
    assert [json.loads(line)["label"] for line in said.out.splitlines()] == ["positive", "negative"]

"""Tests of `tasks.text_classification`, `data.text_inputs` and what the engine does with them."""

from __future__ import annotations

import csv
import io
import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_texts

from keras_transfer import backbones, evaluation, freezing, transfer
from keras_transfer.backbones import Backbone
from keras_transfer.data.pipeline import evaluation_batches, training_batches, unwrap
from keras_transfer.data.records import Record
from keras_transfer.data.text_inputs import text_inputs
from keras_transfer.exported import load_signature
from keras_transfer.folding import live
from keras_transfer.joined import join
from keras_transfer.labels import Labels
from keras_transfer.prediction import open_model, predict
from keras_transfer.progress import Log
from keras_transfer.recipe import BackboneSpec, Phase, Recipe, override
from keras_transfer.tasks import get_task
from keras_transfer.tasks.text_classification import TextClassification
from keras_transfer.training_loop import train_phase

GOOD = ("a warm and clever film", "great fun from start to end", "the actors are wonderful", "a joy to watch")
BAD = ("a dull and clumsy film", "boring from start to end", "the actors are terrible", "a pain to watch")
TASK = TextClassification()


def _records(texts: Sequence[Any], labels: Sequence[Any]) -> list[Record]:
    return [
        Record(f"r{i}", {**({"text": t} if isinstance(t, str) else dict(zip(("text", "text_pair"), t, strict=True))),
                         "label": label}, f"made.csv:{i + 2}", f"{t}".encode()[:16])
        for i, (t, label) in enumerate(zip(texts, labels, strict=True))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts.write_bert(tmp_path_factory.mktemp("presets") / "bert")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts.write_gpt2(tmp_path_factory.mktemp("presets") / "gpt2")


@pytest.fixture(scope="module")
def backbone(bert: Path) -> Backbone:
    return backbones.load(BackboneSpec(name=str(bert)))


def _ready(records: list[Record], backbone: Backbone, **changes: Any) -> tuple[Recipe, Any]:
    recipe = override(Recipe(task="text_classification"), changes)
    labels = TASK.learn_labels(records, recipe)
    recipe, _ = TASK.fit_inputs(TASK.resolve(recipe, len(records)), backbone, records)
    return recipe, labels


def test_it_is_a_task_that_fits_its_inputs() -> None:
    from keras_transfer.tasks.base import FitsInputs, Task

    assert isinstance(get_task("text_classification"), Task)
    assert isinstance(TASK, FitsInputs)


def test_resolve_decides_every_open_field_and_keeps_what_is_given() -> None:
    recipe = TASK.resolve(Recipe(task="text_classification"), 3_000)
    assert recipe.fine_tune.schedule == "linear" and recipe.fine_tune.trainable == "all"
    assert recipe.fine_tune.epochs and recipe.fine_tune.learning_rate and recipe.head.epochs
    assert 2e-5 <= recipe.fine_tune.learning_rate <= 1e-4
    given = override(Recipe(), {"fine_tune.epochs": 7, "fine_tune.trainable": "last:1", "fine_tune.schedule": "cosine"})
    tune = TASK.resolve(given, 100).fine_tune
    assert (tune.epochs, tune.trainable, tune.schedule) == (7, "last:1", "cosine")


def test_none_is_the_tasks_choice_and_zero_is_zero() -> None:
    chosen = TASK.resolve(Recipe(), 100).fine_tune
    assert chosen.weight_decay == 0.01 and chosen.label_smoothing == 0.1
    off = override(Recipe(), {"fine_tune.weight_decay": "0", "fine_tune.label_smoothing": "0"})
    tune = TASK.resolve(off, 100).fine_tune
    assert (tune.weight_decay, tune.label_smoothing) == (0.0, 0.0)
    # A finished run keeps the resolved recipe; resolved again, it is the same.
    again = Recipe.from_dict(TASK.resolve(off, 100).to_dict())
    assert TASK.resolve(again, 100) == TASK.resolve(off, 100)


def test_without_smoothing_a_sure_and_right_answer_costs_nothing() -> None:
    labels = Labels(("x", "y"))
    targets, logits = {"label": tf.constant([0])}, tf.constant([[40.0, -40.0]])
    losses = [
        float(TASK.loss(labels, TASK.resolve(override(Recipe(), {"fine_tune.label_smoothing": smoothing}), 100), None)(
            targets, logits)[0])
        for smoothing in (0.0, None)
    ]  # fmt: skip
    assert losses[0] < 1e-6 < 1.0 < losses[1]


def test_labels_are_single_multi_or_ordinal() -> None:
    single = TASK.learn_labels(_records(["a", "b"], ["x", "y"]), Recipe())
    assert (single.kind, single.names) == ("single", ("x", "y"))
    multi = TASK.learn_labels(_records(["a", "b"], [("x", "y"), ("y",)]), Recipe())
    assert multi.kind == "multi"
    ordinal = TASK.learn_labels(_records(["a", "b", "c"], ["10", "9", "1"]), Recipe(options={"ordinal": "true"}))
    assert (ordinal.kind, ordinal.names) == ("ordinal", ("1", "9", "10"))
    with pytest.raises(ValueError, match="options.ordinal"):
        TASK.learn_labels(_records(["a", "b"], [("x", "y"), ("y",)]), Recipe(options={"ordinal": True}))


def test_one_label_only_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        TASK.learn_labels(_records(["a", "b"], ["x", "x"]), Recipe())


def test_batches_hold_the_texts_padded_to_few_lengths(backbone: Backbone) -> None:
    texts = ["a", "the actors are wonderful " * 6, "a joy to watch", "the film " * 20] * 4
    records = _records(texts, ["x", "y"] * 8)
    recipe, labels = _ready(records, backbone)
    examples = TASK.examples(records, labels, backbone, recipe, training=False)
    widths = set()
    for batch in evaluation_batches(examples, 4).dataset:
        inputs = batch["inputs"]
        assert set(inputs) == {"token_ids", "padding_mask", "segment_ids"}
        widths.add(inputs["token_ids"].shape[1])
        for row, index in enumerate(batch["index"].numpy()):
            size = int(inputs["padding_mask"][row].numpy().sum())
            assert size == examples.lengths[index]  # type: ignore[index]
            one, target = examples.load(tf.constant(index, tf.int64))
            np.testing.assert_array_equal(one["token_ids"], inputs["token_ids"][row][:size])
            assert int(target["label"]) == int(batch["targets"]["label"][row]) == index % 2
        longest = examples.lengths[batch["index"].numpy()].max()  # type: ignore[index]
        assert longest <= inputs["token_ids"].shape[1] < longest + 4
    assert len(widths) > 1 and max(widths) <= max(examples.bucket_lengths)


def test_nothing_is_traced_again_for_another_length(backbone: Backbone) -> None:
    """Training and scoring trace their step at most once a bucket, however many batches and epochs there are."""
    texts = ["a", "the actors are wonderful " * 6, "a joy to watch", "the film " * 20, "great fun " * 3] * 8
    records = _records(texts, ["x", "y"] * 20)
    recipe, labels = _ready(records, backbone)
    joined = join(TASK, backbone, labels, recipe)
    examples = TASK.examples(records, labels, backbone, recipe, training=True)
    traced = []
    each_loss = TASK.loss(labels, recipe, None)

    def loss(targets: Any, outputs: tf.Tensor) -> tf.Tensor:
        traced.append(outputs.shape)  # Python runs only while a step is traced
        return each_loss(targets, outputs)

    batches = training_batches(examples, 4, 0)
    widths = {batch["inputs"]["token_ids"].shape[1] for batch in batches.dataset.take(batches.steps)}
    assert len(widths) >= 3
    freezing.apply(backbone, "none")
    train_phase(joined.model, batches, None, Phase(epochs=4, learning_rate=1e-3), loss)
    assert 1 <= len(traced) <= len(widths)
    traced.clear()
    predictor = evaluation.Predictor(joined.model, loss)
    for _ in range(3):
        predictor(TASK, examples, labels, 4)
    assert 1 <= len(traced) <= len(widths)


def test_lengths_are_said_and_long_texts_keep_both_ends(backbone: Backbone) -> None:
    records = _records(["boring " + "film " * 90 + "wonderful", *GOOD, *BAD], ["y"] + ["x"] * 4 + ["y"] * 4)
    recipe = override(Recipe(), {"backbone.sequence_length": 16})
    recipe, (said,) = TASK.fit_inputs(recipe, backbone, records)
    assert recipe.backbone.sequence_length == 16
    assert "16 tokens" in said and "11.1%" in said
    labels = TASK.learn_labels(records, recipe)
    examples = TASK.examples(records, labels, backbone, recipe, training=True)
    ids = examples.load(tf.constant(0, tf.int64))[0]["token_ids"].numpy().tolist()
    words = backbone.tokenizer.spec.vocabulary
    assert words[ids[1]] == "boring" and words[ids[-2]] == "wonderful" and len(ids) == 16


def test_the_identity_of_inputs_follows_texts_and_length(backbone: Backbone) -> None:
    records = _records([*GOOD, *BAD], ["x"] * 4 + ["y"] * 4)
    recipe, labels = _ready(records, backbone)
    key = TASK.examples(records, labels, backbone, recipe, False).key
    assert key == TASK.examples(records, labels, backbone, recipe, True).key
    shorter = override(recipe, {"backbone.sequence_length": 5})
    assert key != TASK.examples(records, labels, backbone, shorter, False).key
    assert key != TASK.examples(records[1:], labels, backbone, recipe, False).key


@pytest.mark.parametrize("pair", [False, True])
def test_an_export_sees_what_training_sees(backbone: Backbone, gpt2: Path, pair: bool) -> None:
    for used in (backbone, backbones.load(BackboneSpec(name=str(gpt2)))):
        texts: list[Any] = [*GOOD, "the film " * 40, "Café ÀÉ 日本 😀", ""]
        texts = [(text, "boring " * 30) for text in texts] if pair else texts
        records = _records(texts, ["x", "y", "x", "y", "x", "y", "x"])
        recipe, labels = _ready(records, used, **{"backbone.sequence_length": 20})
        assert bool(recipe.options.get("text_pair")) == pair
        joined = transfer.join(TASK, used, labels, recipe)
        examples = TASK.examples(records, labels, used, recipe, False)
        expected = np.concatenate(
            [tf.nn.softmax(joined.model(unwrap(b["inputs"]))).numpy()[b["real"].numpy() > 0]
             for b in evaluation_batches(examples, 1).dataset]
        )  # fmt: skip
        order = [int(b["index"][0]) for b in evaluation_batches(examples, 1).dataset]
        serving = TASK.serving(live(joined.model), labels, recipe, used)
        signature = serving.signatures["serving_default"]
        answers = signature(**{name: tf.constant(value) for name, value in TASK.request(records).items()})
        np.testing.assert_allclose(answers["probabilities"].numpy()[order], expected, atol=1e-5)
        empty = {name: tf.constant([], tf.string) for name in TASK.request(records)}
        assert signature(**empty)["probabilities"].shape == (0, 2)
        assert signature(**empty)["label"].shape == (0,)


def test_serving_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the text backbone"):
        TASK.serving(lambda inputs: inputs, TASK.learn_labels(_records(["a", "b"], ["x", "y"]), Recipe()), Recipe())


def _write_csv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def _reviews(count: int) -> list[tuple[str, str]]:
    return [(f"{i} {(GOOD if i % 2 else BAD)[i // 2 % 4]}", "good" if i % 2 else "bad") for i in range(count)]


@pytest.mark.parametrize("name", [pytest.param("bert", marks=pytest.mark.slow), "gpt2"])
def test_a_run_learns_and_serves_without_its_preset(
    name: str, bert: Path, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = {"bert": tiny_texts.write_bert, "gpt2": tiny_texts.write_gpt2}[name]
    preset = writer(tmp_path / "preset")
    data = _write_csv(tmp_path / "reviews.csv", _reviews(96))
    run = transfer.fit(
        str(data),
        log=Log(),
        **{"backbone.name": str(preset), "head.epochs": 0, "fine_tune.epochs": 8, "fine_tune.learning_rate": 3e-3,
           "data.batch_size": 16},
    )  # fmt: skip
    assert run.metrics["accuracy"] >= 0.9
    assert run.recipe.backbone.sequence_length in (16, 24, 32)
    preset.rename(tmp_path / "gone")
    from_run = open_model(run.path)
    texts = ["97 a joy to watch", "98 a pain to watch"]
    table = _write_csv(tmp_path / "new.csv", [[text] for text in texts], ["text"])
    rows = list(predict(from_run, text_inputs([str(table)], ("text",))))
    assert [row["label"] for row in rows] == ["good", "bad"]
    assert run.saved_model is not None
    outputs = load_signature(run.saved_model)(text=np.array([text.encode() for text in texts], object))
    for row, probabilities in zip(rows, outputs["probabilities"].numpy(), strict=True):
        np.testing.assert_allclose(list(row["probabilities"].values()), probabilities, atol=1e-4)


@pytest.mark.parametrize("kind", ["multi", "ordinal", "pair"])
def test_several_labels_ratings_and_pairs_train_on_frozen_features(
    kind: str, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reviews = _reviews(80)
    changes: dict[str, Any] = {}
    if kind == "multi":
        rows: Sequence[Sequence[str]] = [
            (text, f"{label}|{'film' if 'film' in text else 'other'}") for text, label in reviews
        ]
        header: Sequence[str] = ("text", "label")
    elif kind == "ordinal":
        rows = [(text, "1" if label == "bad" else "5" if "film" in text else "10") for text, label in reviews]
        header, changes = ("text", "label"), {"options": {"ordinal": True}}
    else:
        rows = [(text, "the film", label) for text, label in reviews]
        header = ("text", "text_pair", "label")
    data = _write_csv(tmp_path / "d.csv", rows, header)
    run = transfer.fit(
        str(data), log=Log(), **{"backbone.name": str(bert), "fine_tune.epochs": 0, "export.enabled": False, **changes}
    )
    assert run.labels is not None
    expected = {"multi": "multi", "ordinal": "ordinal", "pair": "single"}[kind]
    assert run.labels.kind == expected
    assert run.metrics
    request = {"text": np.array([b"a joy to watch"], object)}
    if kind == "pair":
        request["text_pair"] = np.array([b"the film"], object)
    answer = TASK.answers(open_model(run.path)(request), run.labels)[0]
    assert ("labels" if kind == "multi" else "label") in answer


def test_inputs_are_files_folders_tables_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text("second\r\nline", encoding="utf-8")
    (folder / "a.txt").write_text("first", encoding="utf-8")
    (folder / "c.png").write_bytes(b"no text")
    table = tmp_path / "t.csv"
    table.write_text('text,label\n"one, two",x\nragged\n,x\nlast,y\n', encoding="utf-8")
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"text": "j"}\n{"other": 1}\n', encoding="utf-8")
    stdin = types.SimpleNamespace(
        buffer=io.BytesIO('plain\n\n{"text": "named", "text_pair": "p"}\n\xff'.encode("latin-1"))
    )
    monkeypatch.setattr("sys.stdin", stdin)
    found = text_inputs([str(folder), str(table), str(lines), "-"], ("text",), ("text_pair",))
    shown = [
        (Path(name).name, value.fields if isinstance(value, Record) else f"error: {value}") for name, value in found
    ]
    assert shown[:3] == [
        ("a.txt", {"text": "first"}),
        ("b.txt", {"text": "second\r\nline"}),
        ("t.csv:2", {"text": "one, two"}),
    ]
    assert shown[3][0].startswith("t.csv:3") and "error: cannot be read" in str(shown[3][1])
    assert shown[4] == ("t.csv:4", "error: the text is empty")
    assert shown[5] == ("t.csv:5", {"text": "last"})
    assert shown[6] == ("t.jsonl:1", {"text": "j"})
    assert "expected the field text" in str(shown[7][1])
    assert shown[8] == ("plain", {"text": "plain"})
    assert shown[9] == ("named", {"text": "named", "text_pair": "p"})
    assert "no UTF-8" in str(shown[10][1])


def test_several_fields_come_from_columns_or_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "a.txt"
    plain.write_text("x", encoding="utf-8")
    row = json.dumps({"question": "q", "context": "c"})
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{row}\nno object\n"))
    found = [value for _, value in text_inputs([str(plain), "-"], ("question", "context"))]
    assert "cannot hold question and context" in str(found[0])
    assert isinstance(found[1], Record) and found[1].fields == {"question": "q", "context": "c"}
    assert "expected a JSON object" in str(found[2])


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    table = _write_csv(tmp_path / "t.csv", [["a"]], ["review"])
    (_, missing), (_, column) = text_inputs([str(tmp_path / "no.txt"), str(table)], ("text",))
    assert "No such file" in str(missing)
    assert "expected the column text; found review" in str(column)

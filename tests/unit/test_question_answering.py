"""Tests of `keras_transfer.tasks.question_answering`: what is taught, and that an export answers as evaluation does."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tiny_texts

import keras_transfer
from keras_transfer import backbones
from keras_transfer import recipe as recipes
from keras_transfer.data.pipeline import evaluation_batches
from keras_transfer.data.records import Record
from keras_transfer.exported import load_signature
from keras_transfer.labels import Labels
from keras_transfer.recipe import BackboneSpec, Recipe
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import FitsInputs, Task
from keras_transfer.text import spans
from keras_transfer.text.byte_pairs import byte_characters
from keras_transfer.text.tokenizing import Layout, Tokenizer, TokenizerSpec

TASK = get_task("question_answering")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS))
RECIPE = recipes.override(
    Recipe(task="question_answering"),
    {"backbone.sequence_length": 24, "options": {"overlap": 4, "question_tokens": 6, "n_best": 3, "answer_tokens": 8}},
)
CONTEXTS = (
    "Café crème\r\nis 2.50 in Tórshavn.",
    "東京は日本の首都です。",
    "a 😀 family 👨\u200d👩\u200d👧 lives here",
    "Cafe\u0301 \u200bzero\u200bwidth 한국 İzmir",
    "short",
    "",
    "long " * 30 + "and the end 😀",
    "  \r\n ",
)


def backbone_of(kind: str):
    """What the task needs of a backbone: its tokenizer, the names of its inputs, its length."""
    if kind == "encoder":
        spec = TokenizerSpec("wordpiece", Layout((2,), (3,), (3,), 0), VOCABULARY, lowercase=True, unknown=1)
        names = ("token_ids", "padding_mask", "segment_ids")
    else:
        spec = TokenizerSpec("byte_pairs", Layout((256,), (256,), (), 256), (*byte_characters(), "<|endoftext|>"))
        names = ("token_ids", "padding_mask")
    return SimpleNamespace(
        tokenizer=Tokenizer(spec), model=SimpleNamespace(input=dict.fromkeys(names)), sequence_length=64, family="own"
    )


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def backbone(request):
    return backbone_of(request.param)


@pytest.fixture(scope="module")
def encoder():
    return backbone_of("encoder")


def numeric(inputs):
    """Logits [W, T, 2] that depend on a token and its place."""
    ids = tf.cast(inputs["token_ids"], tf.float32)
    places = tf.cast(tf.range(tf.shape(ids)[1]), tf.float32)
    return 2 * tf.stack([tf.sin(3.1 * ids + places), tf.cos(1.7 * ids - 2 * places)], axis=-1)


def record_of(context: str, answer: str | None = None, number: int = 0) -> Record:
    answers = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
    fields = {"question": "what is it?", "context": context, "answers": answers}
    return Record(f"q{number}", fields, f"file: q{number}")


def evaluated(records, backbone, labels, batch_size=4):
    """Predictions as the engine makes them."""
    examples = TASK.examples(records, labels, backbone, RECIPE, False)
    parts = [None] * len(examples)
    for batch in evaluation_batches(examples, batch_size).dataset:
        kept = batch["real"].numpy() > 0
        rows = batch["index"].numpy()[kept]
        found = TASK.decode(numeric(batch["inputs"]).numpy()[kept], [examples.meta[row] for row in rows], labels)
        for row, part in zip(rows, found, strict=True):
            parts[row] = part
    groups: dict[str, list] = {}
    for name, part in zip(examples.ids, parts, strict=True):
        groups.setdefault(name, []).append(part)
    return [TASK.merge(group, labels) for group in groups.values()]


def test_it_is_a_task():
    assert isinstance(TASK, Task)
    assert isinstance(TASK, FitsInputs)


@pytest.mark.parametrize("threshold", [spans.ALWAYS, 0.0])
def test_an_export_answers_as_evaluation_does(backbone, threshold):
    labels = Labels((), "none", (threshold,))
    records = [record_of(context, number=number) for number, context in enumerate(CONTEXTS)]
    predictions = evaluated(records, backbone, labels)
    serving = TASK.serving(numeric, labels, RECIPE, backbone)
    answer = serving.signatures["serving_default"]
    outputs = {name: value.numpy() for name, value in answer(**TASK.request(records)).items()}
    sure = TASK.certain(predictions, labels)
    assert sum(sure) >= 2
    for row, prediction in enumerate(predictions):
        wanted = TASK.expected([prediction], labels)
        assert ("answer" in wanted) == sure[row]
        for name, value in wanted.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(outputs[name][row : row + 1], value, atol=1e-5)
            else:
                assert outputs[name][row : row + 1].tolist() == value.tolist(), name
    for row, (context, given) in enumerate(zip(CONTEXTS, TASK.answers(outputs, labels), strict=True)):
        if given["start"] >= 0:
            assert given["answer"] == context[given["start"] : given["end"]] != ""
            assert given["answer"] == given["answer"].strip()
        else:
            assert (given["answer"], given["end"]) == ("", -1)
        best = predictions[row]["candidates"]
        assert [(c["start"], c["end"]) for c in best] == [(c["start"], c["end"]) for c in given["n_best"]]
        assert 0 <= given["score"] <= 1
        json.dumps(given)
    assert TASK.answers(outputs, labels)[5]["n_best"] == [], "an empty context"
    references = TASK.references(records, labels)
    again = TASK.from_outputs(outputs, labels)
    assert TASK.score(again, references, labels) == TASK.score(predictions, references, labels)
    empty = answer(question=tf.zeros([0], tf.string), context=tf.zeros([0], tf.string))
    assert all(value.shape[0] == 0 for value in empty.values())


def test_a_context_longer_than_a_window_is_answered_at_its_end(backbone):
    context = "word " * 40 + "and zürich"
    z = int(backbone.tokenizer.encode(["z"])[0][0])

    def finds_z(inputs):
        hit = tf.cast(inputs["token_ids"] == z, tf.float32)
        return tf.stack([10 * hit, 10 * tf.roll(hit, 1, 1) + 20 * hit], axis=-1)

    answer = TASK.serving(finds_z, Labels((), "none", (0.0,)), RECIPE, backbone).signatures["serving_default"]
    found = {name: value.numpy() for name, value in answer(**TASK.request([record_of(context)])).items()}
    assert found["start"][0] == context.index("z")
    assert found["answer"][0].decode() == context[context.index("z") : found["end"][0]]


def test_a_very_long_context_goes_through_the_network_in_chunks(backbone):
    """What it takes in memory must not grow with the context; the answers are those of evaluation all the same."""
    rows = []

    def counted(inputs):
        size = tf.shape(inputs["token_ids"])[0]
        tf.py_function(lambda size: rows.append(int(size)), [size], [])
        with tf.control_dependencies([tf.debugging.assert_less_equal(size, spans.WINDOWS_AT_ONCE)]):
            return numeric(inputs)

    labels = Labels((), "none", (spans.ALWAYS,))
    contexts = ("Café 😀 crème. " * 200, "short", "", "東京は日本。" * 150)
    records = [record_of(context, number=number) for number, context in enumerate(contexts)]
    answer = TASK.serving(counted, labels, RECIPE, backbone).signatures["serving_default"]
    outputs = {name: value.numpy() for name, value in answer(**TASK.request(records)).items()}
    windows = len(TASK.examples(records, labels, backbone, RECIPE, False))
    assert sum(rows) == windows > 4 * spans.WINDOWS_AT_ONCE and len(rows) == -(-windows // spans.WINDOWS_AT_ONCE)
    predictions = evaluated(records, backbone, labels)
    np.testing.assert_allclose(
        outputs["score"], [np.exp(p["candidates"][0]["log_probability"]) if p["candidates"] else 1.0
                           for p in predictions], atol=1e-5
    )  # fmt: skip
    for row, prediction in enumerate(predictions):
        found = [(c["start"], c["end"]) for c in prediction["candidates"]]
        served = zip(outputs["n_best_start"][row], outputs["n_best_end"][row], strict=True)
        assert found == [pair for pair in served if pair[0] >= 0]


def test_the_answer_is_taught_in_the_windows_that_hold_it(backbone):
    context = "abc " * 12 + "Tórshavn 😀 " + "xyz " * 12
    records = [record_of(context, "Tórshavn 😀"), record_of(context, None, 1)]
    examples = TASK.examples(records, Labels((), "none"), backbone, RECIPE, True)
    taught = 0
    for row, meta in enumerate(examples.meta):
        start, end, null = (int(examples.targets[name][row]) for name in ("start", "end", "null"))
        if start == null:
            assert end == null
            continue
        assert examples.ids[row] == "q0"
        taught += 1
        first, last = meta["starts"][start - meta["first"]], meta["ends"][end - meta["first"]]
        assert context[first:last] == "Tórshavn 😀"
    whole = [
        row
        for row, meta in enumerate(examples.meta)
        if examples.ids[row] == "q0"
        and meta["starts"][0] <= context.index("T")
        and meta["ends"][-1] >= context.index("😀") + 1
    ]
    assert taught == len(whole)


def test_batches_hold_what_the_targets_say(encoder):
    records = [record_of("abc def", "def"), record_of("x " * 40, "x", 1)]
    examples = TASK.examples(records, Labels((), "none"), encoder, RECIPE, True)
    inputs, targets = examples.load_batch(tf.constant([0, 1], tf.int64), tf.constant(24))
    assert {name: value.shape[1] for name, value in inputs.items()} == dict.fromkeys(inputs, 24)
    one_inputs, one_targets = examples.load(tf.constant(0, tf.int64))
    size = int(examples.lengths[0])
    np.testing.assert_array_equal(one_inputs["token_ids"], inputs["token_ids"][0, :size])
    for name, value in targets.items():
        assert value.numpy()[0] == one_targets[name].numpy() == examples.targets[name][0]


def test_the_key_changes_with_what_decides_the_inputs(encoder):
    records = [record_of("abc def", "def")]
    labels = Labels((), "none")
    other = recipes.override(RECIPE, {"options": {"overlap": 3}})
    keys = {
        TASK.examples(records, labels, encoder, RECIPE, True).key,
        TASK.examples(records, labels, encoder, other, True).key,
        TASK.examples(records * 2, labels, encoder, RECIPE, True).key,
    }
    assert len(keys) == 3


def test_a_threshold_is_needed_only_where_a_question_has_no_answer():
    answered, not_answered = record_of("abc", "b"), record_of("abc")
    assert TASK.learn_labels([answered], RECIPE).thresholds == (spans.ALWAYS,)
    assert TASK.learn_labels([answered, not_answered], RECIPE).thresholds == (0.0,)


def prediction_of(text: str, margin: float) -> dict:
    candidate = {"start": 0, "end": len(text), "log_probability": -0.5, "margin": margin}
    return {"candidates": [candidate], "no_answer": -1.0, "most": 3, "context": text}


def rivals(second: float, margin: float = 3.0) -> dict:
    """A prediction whose best span has a rival with that log-probability; the best has -0.5."""
    best = {"start": 0, "end": 1, "log_probability": -0.5, "margin": margin}
    other = {"start": 2, "end": 3, "log_probability": second, "margin": margin + second + 0.5}
    return {"candidates": [best, other], "no_answer": -3.5, "most": 3, "context": "a b"}


def test_near_ties_are_compared_by_their_scores_alone():
    """Rounded otherwise, either of two answers may come first: that must not keep an export from being published."""
    labels = Labels((), "none", (0.0,))
    clear, tied, undecided = rivals(-2.0), rivals(-0.55), rivals(-2.0, margin=0.05)
    nothing = {"candidates": [], "no_answer": 0.0, "most": 3, "context": ""}
    assert TASK.certain([clear, tied, undecided, nothing], labels) == [True, False, False, True]
    assert TASK.certain([undecided], labels.with_thresholds([spans.ALWAYS])) == [True]
    # Of no answer, which of the spans was the best does not matter.
    assert TASK.certain([rivals(-0.5, margin=-3.0)], labels) == [True]
    whole = TASK.expected([clear, nothing], labels)
    assert whole["answer"].tolist() == [b"a", b""] and whole["start"].tolist() == [0, -1]
    scores = TASK.expected([clear, tied], labels)
    assert set(scores) == {"n_best_score"}
    np.testing.assert_allclose(scores["n_best_score"], np.exp([[-0.5, -2.0, -1e9], [-0.5, -0.55, -1e9]]), rtol=1e-6)
    other_way = rivals(-0.5)
    other_way["candidates"][0]["log_probability"] = -0.55
    other_way["candidates"].reverse()
    flipped = TASK.expected([clear, other_way], labels)["n_best_score"]
    np.testing.assert_allclose(flipped, scores["n_best_score"], atol=1e-6)
    assert TASK.expected([], labels)["n_best_score"].shape == (0, 5)


def test_calibration_chooses_the_threshold_on_validation():
    predictions = [prediction_of("a", 3.0), prediction_of("b", 2.0), prediction_of("c", 1.0)]
    references = [{"answers": ["a"]}, {"answers": ["b"]}, {"answers": []}]
    plain = Labels((), "none", (0.0,))
    assert TASK.score(predictions, references, plain)["exact_match"] == pytest.approx(2 / 3)
    chosen = TASK.calibrate(predictions, references, plain)
    assert -2.0 < chosen.thresholds[0] < -1.0
    assert TASK.score(predictions, references, chosen)["exact_match"] == 1.0
    assert TASK.calibrate(predictions[:2], references[:2], plain) == plain


def test_scores_are_those_of_squad():
    predictions = [prediction_of("The Café", 1.0), prediction_of("a cat", 1.0), prediction_of("x", -5.0)]
    references = [{"answers": ["café"]}, {"answers": ["cat food", "dog"]}, {"answers": []}]
    found = TASK.score(predictions, references, Labels((), "none", (0.0,)))
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found["no_answer_exact_match"] == 1.0
    low, high = TASK.intervals(predictions, references, Labels((), "none", (0.0,)))["exact_match"]
    assert 0 <= low <= 2 / 3 <= high <= 1


def test_open_fields_are_decided():
    recipe = TASK.resolve(Recipe(), 5_000)
    assert (recipe.head.epochs, recipe.fine_tune.epochs, recipe.fine_tune.learning_rate) == (0, 2, 1e-4)
    assert (recipe.fine_tune.trainable, recipe.cache) == ("all", "off")
    assert TASK.resolve(recipes.override(Recipe(), {"fine_tune.epochs": 0}), 10).head.epochs == 3
    kept = TASK.resolve(recipes.override(Recipe(), {"fine_tune.epochs": 7, "fine_tune.learning_rate": 1e-5}), 10)
    assert (kept.fine_tune.epochs, kept.fine_tune.learning_rate) == (7, 1e-5)
    with pytest.raises(ValueError, match="cache"):
        TASK.resolve(recipes.override(Recipe(), {"cache": "features"}), 10)


def test_the_plan_says_how_many_questions_need_several_windows(encoder):
    records = [record_of("short"), record_of("long " * 40)]
    recipe, lines = TASK.fit_inputs(RECIPE, encoder, records)
    assert recipe.backbone.sequence_length == 24
    assert "50.0%" in lines[0]
    open_length = recipes.override(RECIPE, {"backbone.sequence_length": 0})
    assert TASK.fit_inputs(open_length, encoder, records)[0].backbone.sequence_length == 64


@pytest.mark.parametrize("options", [{"overlap": "x"}, {"n_best": 0}, {"answer_tokens": -1}])
def test_faulty_options_are_refused(encoder, options):
    with pytest.raises(ValueError, match=f"options.{next(iter(options))}"):
        TASK.examples(
            [record_of("abc", "b")], Labels((), "none"), encoder, recipes.override(RECIPE, {"options": options}), False
        )


def test_the_head_gives_two_logits_a_token_and_none_to_padding():
    import keras

    features = {"sequence": keras.KerasTensor((None, None, 4)), "mask": keras.KerasTensor((None, None))}
    head = TASK.build_head(features, Labels((), "none"), RECIPE)
    outputs = head({"sequence": np.ones((2, 3, 4), np.float32), "mask": np.array([[1, 1, 0], [1, 1, 1]], np.float32)})
    assert outputs.shape == (2, 3, 2)
    assert float(np.max(outputs[0, 2])) < -1e8 < float(np.min(outputs[0, :2]))


def test_inputs_are_lines_of_json(tmp_path, monkeypatch):
    good = {"question": "who?", "context": "Ann."}
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps({"question": "who?"}) + "\n", encoding="utf-8")
    found = TASK.read_inputs([str(path)])
    assert [isinstance(record, Record) for _, record in found] == [True, False]
    assert found[0][1].fields == good
    lines = json.dumps(good).encode() + b"\nnot json\n\xff\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    found = TASK.read_inputs(["-"])
    assert [isinstance(record, Record) for _, record in found] == [True, False, False]


def test_half_of_a_surrogate_pair_does_not_stop_a_request():
    request = TASK.request([record_of("a\ud83d b")])
    assert request["context"][0].decode() == "a\ufffd b"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A network with its tokenizer, and a caller's own model of two logits a token on it."""
    import keras

    keras.utils.set_random_seed(0)
    backbone = backbones.load(BackboneSpec(name=str(tiny_texts.write_bert(tmp_path_factory.mktemp("own") / "bert"))))
    encoder = backbone.encoder("sequence")
    logits = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(stddev=3.0, seed=1))
    return backbone, keras.Model(encoder.input, logits(encoder.output["sequence"]), name="own")


@pytest.mark.slow
def test_a_callers_model_is_exported(bert, tmp_path):
    backbone, model = bert
    version = keras_transfer.export(model, tmp_path, task="question_answering", backbone=backbone)
    asked = {"question": ["what is it?"] * 2, "context": ["boring film " * 60 + "Café 😀 end", "a film"]}
    found = {name: value.numpy() for name, value in load_signature(version)(**asked).items()}
    for row, context in enumerate(asked["context"]):
        assert found["answer"][row].decode() == context[found["start"][row] : found["end"][row]] != ""
    never = Labels((), "none", (-spans.ALWAYS,))
    version = keras_transfer.export(
        model, tmp_path, task="question_answering", backbone=backbone, labels=never, version=7
    )
    assert load_signature(version)(**asked)["start"].numpy().tolist() == [-1, -1]


def test_a_callers_faults_are_named(bert, tmp_path):
    import keras

    backbone, model = bert
    softmax = keras.Model(model.input, keras.layers.Softmax(axis=1)(model.output))
    pooled = keras.Model(model.input, keras.layers.GlobalAveragePooling1D()(model.output))
    for given, options, says in (
        (model, {"labels": ["a", "b"]}, "labels: expected none, since question_answering has no classes"),
        (model, {"labels": Labels(("a", "b"))}, "labels: expected none"),
        (model, {"backbone": None}, "backbone: expected the Backbone whose tokenizer"),
        (softmax, {}, "model: expected logits of shape .* ending in softmax"),
        (pooled, {}, r"model: expected logits of shape .* Received: \(None, 2\)"),
    ):
        arguments = {"task": "question_answering", "backbone": backbone, **options}
        with pytest.raises(ValueError, match=says):
            keras_transfer.export(given, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []

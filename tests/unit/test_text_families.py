"""Every family of text backbones: tokens, offsets, padding, saving; and (slow) both tasks from training to export."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import tiny_families
import tiny_texts
from tiny_families import DECODERS, SENTENCE_PIECES, WRITERS

from keras_transfer import backbones, boundary_cache, devices, fit, freezing
from keras_transfer.backbones import Backbone
from keras_transfer.exported import load_signature
from keras_transfer.progress import Log
from keras_transfer.recipe import BackboneSpec, Phase
from keras_transfer.text import families, networks, offsets, packing

TEXTS = (
    *tiny_texts.CORPUS, *tiny_families.LANGUAGES, "unknown ☃ snow 😀 x", "[CLS] a <s> film [SEP]</s>", "", " ",
    "A  b\t\n c", "e\u0301te\u0301 ﬁne ｆｕｌｌ\u3000wide\u00a0nb", "\u200bzero", "x\r\ny",
)  # fmt: skip
PAIR = ("a warm and clever film", "boring")
WORD_PIECES = {"bert", "distil_bert", "electra"}


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders, written when first asked for."""
    return _Presets(tmp_path_factory.mktemp("families"))


class _Presets(dict[str, Path]):
    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> Path:
        keras.utils.set_random_seed(0)
        self[name] = WRITERS[name](self._folder / name)
        return self[name]


REPEATED = {"electra", "opt", "gpt_neo_x", "falcon", "qwen", "qwen3", "llama", "mixtral", "phi3"}
"""Slow: each has the kind of tokenizer and of layers of another."""


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=[pytest.mark.slow] if n in REPEATED else []) for n in WRITERS]
)
def case(request: pytest.FixtureRequest, presets: dict[str, Path]) -> tuple[str, Backbone]:
    name = request.param
    return name, backbones.load(BackboneSpec(name=str(presets[name])))


def _inputs(backbone: Backbone, texts: tuple[str, ...] = PAIR, width: int | None = None) -> dict[str, np.ndarray]:
    tokenizer = backbone.tokenizer
    ids, segments = tokenizer.graph_pack(tokenizer.encode_ragged(texts), None, 32)
    dense = tokenizer.dense(ids, segments, networks.input_names(backbone.model), width)
    return {name: value.numpy() for name, value in dense.items()}


def test_a_family_is_recognised_with_its_blocks(case: tuple[str, Backbone]) -> None:
    name, backbone = case
    assert backbone.modality == "text" and backbone.pooling == ("last" if name in DECODERS else "mean")
    names = [block.name for block in backbone.blocks]
    assert names[:2] == ["embeddings", "transformer_layer_0"]
    assert (names[-1] == "final_norm") == (name in DECODERS)
    by_name = {layer.name: layer for layer in backbone.model.layers}
    held = [weight.path for block in backbone.blocks for layer in block.layers for weight in by_name[layer].weights]
    assert sorted(held) == sorted(weight.path for weight in backbone.model.weights)


def test_tokens_are_those_of_keras_hub(case: tuple[str, Backbone], presets: dict[str, Path]) -> None:
    name, backbone = case
    hub = keras_hub.tokenizers.Tokenizer.from_preset(str(presets[name]))
    if name not in SENTENCE_PIECES | WORD_PIECES:
        pytest.skip("byte pairs are compared with the original tokenizers in test_tokenizing")
    # keras_hub's WordPiece keeps accents, which BERT's own drops.
    texts = [text for text in TEXTS if name in SENTENCE_PIECES or text.isascii()]
    for text, ids in zip(texts, backbone.tokenizer.encode(texts), strict=True):
        assert ids.tolist() == np.asarray(hub(text)).tolist(), text


def test_no_text_gives_a_special_token(case: tuple[str, Backbone]) -> None:
    _, backbone = case
    layout = backbone.tokenizer.layout
    found = set(np.concatenate(backbone.tokenizer.encode(TEXTS)).tolist())
    assert not found & {*layout.prefix, *layout.middle, *layout.suffix}


def test_tokens_know_their_characters(case: tuple[str, Backbone]) -> None:
    name, backbone = case
    texts = tf.constant(TEXTS)
    ids, starts, ends = backbone.tokenizer.graph_encode_with_offsets(texts)
    starts, ends = offsets.graph_characters(texts, starts, ends)
    assert ids.row_lengths().numpy().tolist() == starts.row_lengths().numpy().tolist()
    for text, from_, to in zip(TEXTS, starts.to_list(), ends.to_list(), strict=True):
        assert from_ == sorted(from_) and to == sorted(to), text
        assert all(0 <= a <= len(text) and 0 <= b <= len(text) for a, b in zip(from_, to, strict=True)), text
        parts = [text[a:b] for a, b in zip(from_, to, strict=True) if b > a]
        assert all(part == part.strip() for part in parts), text
        if name not in WORD_PIECES or text.isascii():
            # Every character that is no space is in a token, and none is skipped between two.
            covered = {place for a, b in zip(from_, to, strict=True) for place in range(a, b)}
            missed = {text[place] for place in range(len(text)) if place not in covered}
            assert all(character.isspace() or character in "\u200b\u0301" for character in missed), (text, missed)


def test_features_do_not_change_with_padding(case: tuple[str, Backbone]) -> None:
    _, backbone = case
    encoder = backbone.encoder("pooled")
    if families.reads_padding(backbone.family):
        first, alone = (encoder(_inputs(backbone, texts, 32)).numpy() for texts in (PAIR, PAIR[1:]))
        np.testing.assert_allclose(alone[0], first[1], atol=1e-5)
        assert packing.buckets(48, backbone.family) == (48,)
        return
    inputs = _inputs(backbone)
    features = encoder(inputs).numpy()
    assert features.shape == (2, 16) and features.dtype == np.float32 and np.isfinite(features).all()
    wider = {key: np.pad(value, [(0, 0), (0, 7)]) for key, value in inputs.items()}
    np.testing.assert_allclose(encoder(wider).numpy(), features, atol=1e-5)
    np.testing.assert_allclose(encoder(_inputs(backbone, PAIR[1:])).numpy()[0], features[1], atol=1e-5)


def test_features_computed_in_bfloat16_are_near(case: tuple[str, Backbone]) -> None:
    _, backbone = case
    encoder, inputs = backbone.encoder("pooled"), _inputs(backbone, width=32)
    exact = encoder(inputs).numpy()
    with devices.in_bfloat16(list(encoder._flatten_layers())):
        fast = tf.cast(encoder(inputs), tf.float32).numpy()
    assert not np.array_equal(fast, exact), "computed otherwise"
    np.testing.assert_allclose(fast, exact, atol=0.05 * np.abs(exact).max())
    np.testing.assert_array_equal(encoder(inputs).numpy(), exact)


def test_a_saved_model_brings_network_and_tokenizer(case: tuple[str, Backbone], tmp_path: Path) -> None:
    _, backbone = case
    encoder = backbone.encoder("pooled")
    model = keras.Model(encoder.input, keras.layers.Dense(2)(encoder.output))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    wrapper = backbones.find_wrapper(again)
    assert wrapper is not None
    found = backbones.from_wrapper(wrapper)
    assert found.tokenizer.spec == backbone.tokenizer.spec and found.blocks == backbone.blocks
    inputs = _inputs(found, width=32)
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "mistral"])
def test_a_model_can_be_saved_after_its_backbone_was_cut(name: str, presets: dict[str, Path], tmp_path: Path) -> None:
    """The layers above the boundary take the padding mask as the whole model does."""
    backbone = backbones.load(BackboneSpec(name=str(presets[name])))
    encoder = backbone.encoder("pooled")
    head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)])
    model = keras.Model(encoder.input, head(encoder.output))
    freezing.apply(backbone, "last:1")
    parts = boundary_cache.cut(backbone, encoder, head, Phase(trainable="last:1"))
    inputs = {name: keras.ops.convert_to_tensor(value) for name, value in _inputs(backbone).items()}
    lower = parts.prefix(inputs)
    above = {boundary_cache.BOUNDARY: lower, **{name: inputs[name] for name in parts.extras}}
    np.testing.assert_allclose(parts.suffix(above), model(inputs), atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-6)


def test_a_network_that_reads_padding_is_not_cut(presets: dict[str, Path]) -> None:
    backbone = backbones.load(BackboneSpec(name=str(presets["f_net"])))
    assert freezing.boundary(backbone, "last:1") is None
    assert freezing.boundary(backbones.load(BackboneSpec(name=str(presets["albert"]))), "none") is not None


def _write_reviews(folder: Path, count: int = 48) -> Path:
    """Reviews of two kinds; the words tell them apart."""
    folder.mkdir()
    words = (("dull", "boring", "terrible"), ("wonderful", "clever", "great"))
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for number in range(count):
            kind = number % 2
            text = f"{'a film ' * (number % 5)}{words[kind][number // 2 % 3]} in Tórshavn {number} 😀 東京"
            rows.writerow([text, ("bad", "good")[kind]])
    return folder


def _write_questions(folder: Path, count: int = 24) -> Path:
    """Questions on contexts of one and of several windows."""
    folder.mkdir()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            place = ("Tórshavn", "東京", "the end", "Café crème")[number % 4]
            context = f"{'the film lives here ' * (8 * (number % 3))}😀 e\u0301 where it is: {place}. {number}"
            answers = [{"text": place, "answer_start": context.index(place)}]
            line = {"question": "where is it?", "context": context, "answers": answers}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return folder


def _fit(source: Path, preset: Path, length: int, **overrides: object):  # type: ignore[no-untyped-def]
    return fit(
        str(source),
        log=Log(quiet=True),
        name="tiny",
        backbone={"name": str(preset), "sequence_length": length},
        data={"batch_size": 8},
        runs_directory=str(source / "runs"),
        export={"directory": str(source / "models")},
        **overrides,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_texts_are_classified_from_training_to_export(name: str, presets: dict[str, Path], tmp_path: Path) -> None:
    data = _write_reviews(tmp_path / "reviews")
    run = _fit(data, presets[name], 0, head={"epochs": 1}, fine_tune={"epochs": 1, "trainable": "last:2"})
    assert run.status == "done" and all(run.trainable[phase] > 0 for phase in ("head", "fine_tune"))
    # `fit` has compared the export with the training side in a fresh process; here with the saved model, on new texts.
    texts = ["a wonderful film", "dull 東京 " * 30, "", "\u200b e\u0301 😀"]
    answers = load_signature(run.saved_model)(text=texts)
    model = keras.saving.load_model(run.path / "model.keras", compile=False)
    backbone = backbones.from_wrapper(backbones.find_wrapper(model))
    length = run.recipe.backbone.sequence_length
    tokenizer = backbone.tokenizer
    ids, segments = tokenizer.graph_pack(tokenizer.encode_ragged(texts), None, length)
    width = packing.width_of_all(backbone.family, length)
    inputs = tokenizer.dense(ids, segments, networks.input_names(backbone.model), width)
    np.testing.assert_allclose(answers["probabilities"], tf.nn.softmax(model(inputs)), atol=1e-4)
    alone = load_signature(run.saved_model)(text=texts[:1])
    np.testing.assert_allclose(alone["probabilities"][0], answers["probabilities"][0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_questions_are_answered_from_training_to_export(name: str, presets: dict[str, Path], tmp_path: Path) -> None:
    data = _write_questions(tmp_path / "questions")
    run = _fit(data, presets[name], 48, task="question_answering", fine_tune={"epochs": 1, "learning_rate": 1e-3})
    assert run.status == "done" and 0 <= run.metrics["exact_match"] <= run.metrics["f1"] <= 1
    context = "nothing is here. " * 30 + "e\u0301 東京 😀 Tórshavn\r\n"
    found = load_signature(run.saved_model)(question=["where is it?"], context=[context])
    start, end = int(found["start"][0]), int(found["end"][0])
    assert found["answer"][0].numpy().decode() == context[start:end] != ""

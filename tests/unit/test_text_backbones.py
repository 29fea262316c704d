"""Tests of text backbones: loading, blocks, pooling, freezing, saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_texts

from keras_transfer import backbones, freezing
from keras_transfer.backbones import Backbone
from keras_transfer.recipe import BackboneSpec
from keras_transfer.text import families, networks, pretrained

TEXTS = ["a warm and clever film", "boring"]
WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": tiny_texts.write_bert,
    "gpt2": tiny_texts.write_gpt2,
    "llama3": tiny_texts.write_llama3,
    "roberta": tiny_texts.write_roberta,
    "hugging_face_bert": tiny_texts.write_hugging_face_bert,
    "hugging_face_gpt2": tiny_texts.write_hugging_face_gpt2,
}
DECODERS = {"gpt2", "llama3", "hugging_face_gpt2"}


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("presets")
    return {name: write(folder / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def loaded(presets: dict[str, Path]) -> dict[str, Backbone]:
    return {name: backbones.load(BackboneSpec(name=str(folder))) for name, folder in presets.items()}


def _inputs(backbone: Backbone, texts: list[str] = TEXTS) -> dict[str, np.ndarray]:
    tokenizer = backbone.tokenizer
    ids, segments = tokenizer.graph_pack(tokenizer.encode_ragged(texts), None, 32)
    dense = tokenizer.dense(ids, segments, networks.input_names(backbone.model))
    return {name: value.numpy() for name, value in dense.items()}


def _wider(inputs: dict[str, np.ndarray], by: int) -> dict[str, np.ndarray]:
    return {name: np.pad(value, [(0, 0), (0, by)]) for name, value in inputs.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_is_recognised_as_encoder_or_decoder(loaded: dict[str, Backbone], name: str) -> None:
    backbone = loaded[name]
    assert backbone.modality == "text"
    assert backbone.pooling == ("last" if name in DECODERS else "mean")
    assert backbone.sequence_length == (pretrained.LONGEST_BY_DEFAULT if name == "llama3" else 64)
    norm = ["final_norm"] if name in DECODERS else []
    layers = [f"transformer_layer_{number}" for number in range(3)]
    assert [block.name for block in backbone.blocks] == ["embeddings", *layers, *norm]


@pytest.mark.parametrize("name", WRITERS)
def test_blocks_hold_every_weight_once(loaded: dict[str, Backbone], name: str) -> None:
    backbone = loaded[name]
    by_name = {layer.name: layer for layer in backbone.model.layers}
    held = [weight.path for block in backbone.blocks for layer in block.layers for weight in by_name[layer].weights]
    assert sorted(held) == sorted(weight.path for weight in backbone.model.weights)


@pytest.mark.parametrize("name", WRITERS)
def test_padding_does_not_change_features(loaded: dict[str, Backbone], name: str) -> None:
    encoder = loaded[name].encoder("pooled")
    inputs = _inputs(loaded[name])
    features = encoder(inputs).numpy()
    assert features.shape == (2, 16) and features.dtype == np.float32
    np.testing.assert_allclose(encoder(_wider(inputs, 7)).numpy(), features, atol=1e-5)
    alone = encoder(_inputs(loaded[name], TEXTS[1:])).numpy()
    np.testing.assert_allclose(alone[0], features[1], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_sequence_comes_with_its_mask(loaded: dict[str, Backbone], name: str) -> None:
    inputs = _inputs(loaded[name])
    found = loaded[name].encoder("sequence")(inputs)
    assert found["sequence"].shape == (*inputs["token_ids"].shape, 16)
    np.testing.assert_array_equal(found["mask"].numpy(), inputs["padding_mask"])


def test_dropout_is_off_whatever_the_outer_model_is_told(loaded: dict[str, Backbone]) -> None:
    encoder = loaded["bert"].encoder("pooled")
    inputs = _inputs(loaded["bert"])
    np.testing.assert_array_equal(encoder(inputs, training=True).numpy(), encoder(inputs, training=False).numpy())


def test_each_pooling_is_what_its_name_says(presets: dict[str, Path]) -> None:
    def features(pooling: str, kind: str = "pooled") -> tuple[Backbone, np.ndarray]:
        backbone = backbones.load(BackboneSpec(name=str(presets["bert"]), pooling=pooling))
        found = backbone.encoder(kind)(_inputs(backbone))  # type: ignore[arg-type]
        return backbone, (found if kind == "pooled" else found["sequence"]).numpy()

    backbone, sequence = features("auto", "sequence")
    mask = _inputs(backbone)["padding_mask"]
    sizes = mask.sum(1)
    assert sizes[0] != sizes[1]
    np.testing.assert_allclose(features("first")[1], sequence[:, 0], atol=1e-6)
    np.testing.assert_allclose(features("last")[1], sequence[np.arange(2), sizes - 1], atol=1e-6)
    mean = [row[:size].mean(0) for row, size in zip(sequence, sizes, strict=True)]
    np.testing.assert_allclose(features("mean")[1], mean, atol=1e-6)
    pooler, pooled = features("pooled")
    assert pooler.blocks[-1].name == "pooler"
    assert np.abs(pooled).max() <= 1.0  # tanh


def test_a_text_of_padding_alone_has_finite_features() -> None:
    sequence, mask = np.ones((1, 4, 2), np.float32), np.zeros((1, 4), np.int32)
    for how in ("mean", "first", "last"):
        assert np.isfinite(networks.SequencePooling(how)(sequence, mask)).all()  # type: ignore[arg-type]


def test_unknown_pooling_names_the_known_ones(presets: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"backbone.pooling: expected one of auto, mean, first, last, pooled"):
        backbones.load(BackboneSpec(name=str(presets["bert"]), pooling="max"))


def test_a_decoder_has_no_pooler(presets: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="has no pooler of its own"):
        backbones.load(BackboneSpec(name=str(presets["gpt2"]), pooling="pooled"))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_features_at_an_earlier_layer_drop_those_above(
    presets: dict[str, Path], loaded: dict[str, Backbone], name: str
) -> None:
    cut = backbones.load(BackboneSpec(name=str(presets[name]), features_at="transformer_layer_1"))
    assert cut.blocks[-1].name == "transformer_layer_1"
    assert cut.model.count_params() < loaded[name].model.count_params()
    whole = keras.Model(loaded[name].model.input, loaded[name].model.get_layer("transformer_layer_1").output)
    inputs = _inputs(cut)
    taken = {key: inputs[key] for key in loaded[name].model.input}
    np.testing.assert_allclose(cut.encoder("sequence")(inputs)["sequence"], whole(taken), atol=1e-6)


def test_random_weights_need_only_the_folder(presets: dict[str, Path], loaded: dict[str, Backbone]) -> None:
    fresh = backbones.load(BackboneSpec(name=str(presets["bert"]), weights="none"))
    assert fresh.origin.source == "random"
    assert fresh.model.count_params() == loaded["bert"].model.count_params()
    kernel = "transformer_layer_0/self_attention_layer/query/kernel"
    ours, theirs = ({w.path: w.numpy() for w in b.model.weights}[kernel] for b in (fresh, loaded["bert"]))
    assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("trainable", "inside", "outside"),
    [
        ("last:1", "transformer_layer_2/", "transformer_layer_1/"),
        ("from:transformer_layer_1", "transformer_layer_1/", "transformer_layer_0/"),
        ("bias", "transformer_layer_0/", "token_embedding"),
        ("norms", "layer_norm", "dense"),
        ("lora:2", "lora_kernel", "bias"),
    ],
)
def test_toggles_train_what_they_name(presets: dict[str, Path], trainable: str, inside: str, outside: str) -> None:
    backbone = backbones.load(BackboneSpec(name=str(presets["bert"]), weights="none"))
    paths = freezing.apply(backbone, trainable)
    assert any(inside in path for path in paths)
    assert not any(outside in path for path in paths)


def test_last_two_of_a_decoder_are_its_norm_and_its_top_layer(loaded: dict[str, Backbone]) -> None:
    paths = freezing.apply(loaded["gpt2"], "last:2")
    freezing.apply(loaded["gpt2"], "none")
    assert {path.split("/")[0] for path in paths} == {"transformer_layer_2", "layer_norm"}


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama3", "roberta"])
def test_a_saved_model_that_was_cut_brings_its_tokenizer(
    loaded: dict[str, Backbone], name: str, tmp_path: Path
) -> None:
    """Whole ones are in test_text_families."""
    backbone = loaded[name].cut("transformer_layer_1")
    encoder = backbone.encoder("pooled")
    model = keras.Model(encoder.input, keras.layers.Dense(2)(encoder.output))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    wrapper = backbones.find_wrapper(again)
    assert wrapper is not None
    found = backbones.from_wrapper(wrapper)
    assert found.tokenizer.spec == backbone.tokenizer.spec
    assert found.blocks == backbone.blocks
    assert [weight.path for weight in found.model.weights] == [weight.path for weight in backbone.model.weights]
    inputs = _inputs(found)
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-6)


def test_texts_may_be_longer_than_default_but_not_than_possible(presets: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="takes at most 64 tokens. Received: 65"):
        backbones.load(BackboneSpec(name=str(presets["bert"]), sequence_length=65))
    assert backbones.load(BackboneSpec(name=str(presets["bert"]), sequence_length=8)).sequence_length == 8


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_bert(tmp_path / "bert")
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("another\n")
    with pytest.raises(ValueError, match="expected a tokenizer of at most"):
        backbones.load(BackboneSpec(name=str(folder)))


def test_a_folder_without_vocabulary_is_named(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_bert(tmp_path / "bert")
    (folder / "vocab.txt").unlink()
    with pytest.raises(ValueError, match=r"backbone.name: the preset folder .*bert could not be loaded"):
        backbones.load(BackboneSpec(name=str(folder)))


def test_a_hub_preset_out_of_reach_says_how_to_bring_it() -> None:
    with pytest.raises(ValueError, match=r"'bert_tiny_en_uncased' could not be fetched.*save_to_preset"):
        backbones.load(BackboneSpec(name="bert_tiny_en_uncased"))


@pytest.mark.parametrize(
    ("preset", "family"),
    [
        ("bert_base_en_uncased", "Bert"),
        ("distil_bert_base_en_uncased", "DistilBert"),
        ("roberta_base_en", "Roberta"),
        ("gpt2_base_en", "GPT2"),
        ("llama3_8b_en", "Llama3"),
        ("resnet_50_imagenet", None),
        ("bart_base_en", None),
    ],
)
def test_presets_are_recognised_by_name(preset: str, family: str | None) -> None:
    found = pretrained.family_of(preset)
    assert (found.name if found else None) == family


def test_every_family_is_a_class_of_keras_hub() -> None:
    import keras_hub

    for name in families.FAMILIES:
        assert hasattr(keras_hub.models, f"{name}Backbone"), name


def test_a_layer_that_is_called_many_times_is_cut_after_its_last_call() -> None:
    import keras_hub

    size = {"num_layers": 3, "num_heads": 1, "embedding_dim": 4, "hidden_dim": 4, "intermediate_dim": 8}
    albert = keras_hub.models.AlbertBackbone(vocabulary_size=10, **size)
    network = networks.network(albert, "mean")
    again = networks.HubNetwork.from_config(network.get_config())
    again.set_weights(network.get_weights())
    inputs = {name: np.ones((1, 3), np.int32) for name in network.input}
    np.testing.assert_allclose(again(inputs), albert(inputs)["sequence_output"], atol=1e-6)
    assert [block.name for block in networks.blocks(network)] == ["embeddings", "transformer_layer_0"]


def test_a_network_of_two_texts_is_refused() -> None:
    import keras_hub

    size = {"num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 8, "max_sequence_length": 8}
    model = keras_hub.models.BartBackbone(vocabulary_size=10, **size)
    with pytest.raises(ValueError, match="expected a text encoder or decoder"):
        networks.network(model, "mean")


@pytest.mark.samples
def test_minilm_tells_like_from_unlike() -> None:
    backbone = backbones.load(BackboneSpec(name="minilm"))
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    features = backbone.encoder("pooled")(_inputs(backbone, texts)).numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    likeness = features @ features.T
    # What sentence-transformers publishes for such pairs: about 0.6 and 0.
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]

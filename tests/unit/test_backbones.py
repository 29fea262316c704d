"""Backbones: names, weights from files, presets and runs, and what is said where they cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import backbones, feature_key
from keras_transfer.backbones import Backbone, InferenceMode
from keras_transfer.recipe import BackboneSpec
from keras_transfer.vision import blocks as graph
from keras_transfer.vision import families, pretrained

SIZE = 32


def load(name: str, weights: str = "none", image_size: int = SIZE, **fields) -> Backbone:
    return backbones.load(BackboneSpec(name=name, weights=weights, image_size=image_size, **fields))


def pixels(size: int = SIZE, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")


@pytest.fixture(scope="module")
def vgg() -> Backbone:
    return load("vgg16")


@pytest.fixture(scope="module")
def lite() -> Backbone:
    return load("efficientnet_lite0")


# Names


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("resnet50", "resnet50"),
        ("ResNet50", "resnet50"),
        ("resnet50v2", "resnet50_v2"),
        ("inceptionv3", "inception_v3"),
        ("Inception-ResNet-V2", "inception_resnet_v2"),
        ("EfficientNetV2B0", "efficientnet_v2_b0"),
        ("efficientnetb7", "efficientnet_b7"),
        ("MobileNetV3Small", "mobilenet_v3_small"),
        ("efficientnet-lite0", "efficientnet_lite0"),
    ],
)
def test_names_however_written(written: str, name: str):
    found = families.find(written)
    assert found is not None and found.name == name


def test_registry_is_whole_and_needs_no_tensorflow():
    code = "import sys, keras_transfer.vision.families as f; print(len(f.names()), 'tensorflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert answer == ["41", "False"]
    for name, family, parameters, size in families.names():
        assert families.find(name) is families.ARCHITECTURES[name]
        assert family in families.FAMILIES and parameters > 900_000 and 224 <= size <= 600


@pytest.mark.parametrize(
    ("name", "near"), [("resnt50", "resnet50"), ("vgg_61", "vgg16"), ("sample:eficientnet_lite0", "efficientnet_lite0")]
)
def test_unknown_names_suggest(name: str, near: str):
    with pytest.raises(ValueError, match=rf"backbone.name: .*did you mean .*{near}.*Received: '{name}'"):
        load(name)


@pytest.mark.parametrize("name", ["", "qqqq", "run:nowhere"])
def test_unknown_names_say_what_is_expected(name: str):
    with pytest.raises(ValueError, match="backbone.name: .*expected .*Received"):
        load(name, weights="auto")


# Weights


@pytest.mark.parametrize(
    "name", ["vgg16", pytest.param("nasnet_mobile", marks=pytest.mark.slow), "mobilenet_v2", "convnext_tiny"]
)
def test_imagenet_weights_out_of_reach(name: str, monkeypatch, tmp_path, capsys):
    def unreachable(address, *args, **kwargs):
        from urllib.error import URLError

        raise URLError("no route to host")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    file = pretrained.keras_cache() / families.ARCHITECTURES[name].weights_file(96)
    if file.exists():
        pytest.skip(f"{file} is there")
    with pytest.raises(ValueError) as caught:
        load(name, weights="imagenet", image_size=96)
    message = str(caught.value)
    assert f"put it here by hand as {file}" in message and "backbone.weights=PATH" in message
    assert "https://" in message and "no route to host" in message
    assert capsys.readouterr().out == "", "standard output is for results"


@pytest.mark.parametrize(
    "name",
    [
        *("resnet50_v2", "mobilenet", "mobilenet_v3_small", "efficientnet_v2_b0"),
        *(pytest.param(n, marks=pytest.mark.slow) for n, a in families.ARCHITECTURES.items() if a.builder),
    ],
)
def test_the_file_named_is_the_one_that_keras_looks_for(name: str, monkeypatch):
    asked: list[str] = []

    class Stop(Exception):
        pass

    def only_note(fname=None, origin=None, **kwargs):
        asked.append(fname)
        raise Stop

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", only_note)
    known = families.ARCHITECTURES[name]
    for size in (128, known.image_size):
        with pytest.raises(Stop):
            load(name, weights="imagenet", image_size=size)
        assert asked.pop() == known.weights_file(size)


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", "-joined.keras"])
def test_weights_from_a_file(ending: str, lite: Backbone, tmp_path: Path):
    file = tmp_path / f"saved{ending}"
    if ending == ".weights.h5":
        lite.model.save_weights(file)
    else:
        (lite.encoder("pooled") if "joined" in ending else lite.model).save(file)
    loaded = load("efficientnet_lite0", weights=str(file))
    for theirs, ours in zip(lite.model.weights, loaded.model.weights, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    assert loaded.origin.source == str(file)


def test_weights_that_would_leave_layers_random(vgg: Backbone, tmp_path: Path):
    file = tmp_path / "part.weights.h5"
    vgg.cut("block3").model.save_weights(file)
    with pytest.raises(ValueError, match="part.weights.h5 does not hold the weights of vgg16"):
        load("vgg16", weights=str(file))


def test_weights_of_another_network(vgg: Backbone, tmp_path: Path):
    file = tmp_path / "vgg.weights.h5"
    vgg.model.save_weights(file)
    with pytest.raises(ValueError, match=r"backbone.weights: .*vgg.weights.h5 does not hold the weights of"):
        load("mobilenet_v3_small", weights=str(file))
    vgg.model.save(file.with_suffix(".keras"))
    with pytest.raises(ValueError, match="does not hold the weights of MobileNetV3Small"):
        load("mobilenet_v3_small", weights=str(file.with_suffix(".keras")))


@pytest.mark.parametrize(
    ("name", "weights", "complaint"),
    [
        ("vgg16", "nowhere.h5", "there is no such file"),
        ("vgg16", "imagnet", r"did you mean imagenet\?"),
        ("vgg16", "sample:efficientnet_lite0", "the samples hold no weights of vgg16"),
        ("efficientnet_lite0", "sample:minilm", "expected sample:efficientnet_lite0"),
    ],
)
def test_weights_that_are_not_there(name: str, weights: str, complaint: str):
    with pytest.raises(ValueError, match=f"backbone.weights: .*{complaint}"):
        load(name, weights=weights)


@pytest.mark.samples
def test_sample_weights():
    backbone = backbones.load(BackboneSpec(name="efficientnet_lite0"))
    assert backbone.origin.licence == "Apache-2.0" and backbone.image_size == 224
    again = backbones.load(BackboneSpec(name="sample:efficientnet_lite0", weights="none"))
    assert [w.path for w in again.model.weights] == [w.path for w in backbone.model.weights]
    # Keras numbers input layers over the whole process.
    configs = [[layer.get_config() for layer in one.model.layers[1:]] for one in (again, backbone)]
    assert configs[0] == configs[1]
    assert feature_key.architecture(again.model) == feature_key.architecture(backbone.model)
    assert again.blocks == backbone.blocks


@pytest.mark.parametrize(("name", "size"), [("vgg16", 31), ("inception_v3", 74), ("xception", 70)])
def test_images_that_are_too_small(name: str, size: int):
    with pytest.raises(ValueError, match=rf"backbone.image_size: .*at least {size + 1} pixels. Received: {size}"):
        load(name, image_size=size)


@pytest.mark.parametrize("side", [96, 100])
def test_efficientnet_lite_pads_as_the_tensorflow_that_trained_it(side: int, tmp_path: Path):
    load("efficientnet_lite0", image_size=side).model.save(tmp_path / "lite.keras")
    model = keras.saving.load_model(tmp_path / "lite.keras")
    random, strided = np.random.default_rng(0), 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.ZeroPadding2D):
            convolution = model.get_layer(layer.name.removesuffix("_pad"))
            strides = [1, *convolution.strides, 1]
            by = tf.nn.conv2d if convolution.name == "stem_conv" else tf.nn.depthwise_conv2d
            x = random.normal(size=(1, side, side, convolution.kernel.shape[2])).astype("float32")
            expected = by(x, convolution.kernel, strides, "SAME")
            np.testing.assert_allclose(convolution(layer(x)), expected, rtol=0, atol=1e-4)
            side, strided = expected.shape[1], strided + (strides[1] == 2)
    assert strided == 5


# Features


def test_features_at_a_block_or_a_layer(vgg: Backbone):
    cut = load("vgg16", features_at="block4")
    assert [block.name for block in cut.blocks] == ["block1", "block2", "block3", "block4"]
    assert dict(cut.pyramid) == {4: "block2_pool", 8: "block3_pool", 16: "block4_pool"}
    assert cut.encoder("pooled").output.shape == (None, 512)
    assert cut.cut("block4") is cut
    inner = vgg.cut("block3_conv2")
    assert inner.blocks[-1].layers == ("block3_conv1", "block3_conv2") and inner.blocks[-1].output == "block3_conv2"
    whole = vgg.encoder("pooled", features_at="block3_conv2")(pixels())
    np.testing.assert_allclose(inner.encoder("pooled")(pixels()), whole, atol=1e-4)
    with pytest.raises(ValueError, match=r"backbone.features_at: .*did you mean block4_pool.*block1, block2"):
        vgg.cut("block4pool")


def test_pooled_features_are_the_average_of_the_preprocessed(vgg: Backbone):
    images = pixels()
    maps = vgg.model(keras.applications.vgg16.preprocess_input(images.copy()))
    expected = np.mean(maps, axis=(1, 2))
    np.testing.assert_allclose(vgg.encoder("pooled")(images), expected, rtol=1e-4, atol=1e-4)


def test_valid_padding_is_filled_evenly():
    backbone = load("inception_v3", image_size=96)
    outputs = backbone.encoder("pyramid")(pixels(96))
    inner = graph.output_of(backbone.model, backbone.pyramid[8])
    maps = keras.Model(backbone.model.input, inner)(pixels(96) / 127.5 - 1)
    assert maps.shape[1:3] == (9, 9) and outputs["8"].shape[1:3] == (12, 12)
    np.testing.assert_allclose(outputs["8"][:, 1:-2, 1:-2], maps, atol=1e-4)
    assert np.abs(outputs["8"][:, 0]).max() == 0 and np.abs(outputs["8"][:, -2:]).max() == 0


def test_features_that_are_not_offered(vgg: Backbone):
    with pytest.raises(ValueError, match="offers pooled and pyramid. Received: 'sequence'"):
        vgg.encoder("sequence")


def test_features_are_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = load("mobilenet_v3_small").encoder("pooled")
    finally:
        keras.config.set_dtype_policy(before)
    assert encoder.output.dtype == "float32"
    assert encoder.get_layer("backbone").model.output.dtype == "bfloat16"


# The wrapper


def test_gradients_through_the_wrapper_are_those_of_inference():
    import tensorflow as tf

    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.9)(keras.layers.Dense(3)(inputs))
    network = keras.Model(inputs, keras.layers.BatchNormalization()(x))
    wrapped = InferenceMode(network)
    batch = np.ones((2, 4), "float32")

    def gradients(call):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call() ** 2)
        return tape.gradient(loss, [v.value for v in network.trainable_variables])

    for one, other in zip(
        gradients(lambda: wrapped(batch, training=True)), gradients(lambda: network(batch, training=False)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert [v.path for v in wrapped.trainable_variables] == [v.path for v in network.trainable_variables]
    assert InferenceMode(network, batchnorm="train")(batch, training=True).shape == (2, 3)
    network.layers[1].trainable = False
    assert wrapped.trainable_variables == network.trainable_variables


def test_the_wrapper_passes_dictionaries(tmp_path: Path):
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    network = keras.Model({"first": first, "second": second}, {"sum": first + keras.layers.Dense(3)(second)})
    outer = {name: keras.Input((3,), name=name) for name in ("first", "second")}
    model = keras.Model(outer, InferenceMode(network)(outer)["sum"])
    batch = {name: np.full((2, 3), value, "float32") for name, value in (("first", 1), ("second", 2))}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(batch), model(batch), atol=1e-6)


# The caller's own model, an earlier run, presets


def own_network(size: int | None = SIZE) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, padding="same", activation="relu", name="first")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x), name="mine")


def test_wrap_takes_the_callers_own_model():
    backbone = backbones.wrap(own_network(), preprocess="unit")
    assert [block.name for block in backbone.blocks] == ["first", "second"]
    assert dict(backbone.pyramid) == {4: "first", 8: "second"} and backbone.image_size == SIZE
    expected = np.mean(backbone.model(pixels() / 255), axis=(1, 2))
    np.testing.assert_allclose(backbone.encoder("pooled")(pixels()), expected, atol=1e-5)
    assert backbones.wrap(own_network(None), image_size=64).encoder("pyramid").output["8"].shape == (None, 8, 8, 6)


def test_wrap_knows_the_networks_of_keras():
    model = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    assert [block.name for block in backbones.wrap(model).blocks] == ["stem", "conv2", "conv3", "conv4", "conv5"]


@pytest.mark.parametrize(
    ("make", "arguments", "complaint"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(1)]), {}, "expected a built model with one input of images"),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), {}, r"Received: .*\(None, 4\)"),
        (own_network, {"image_size": 64}, "takes images of 32 pixels. Received: 64"),
        (own_network, {"preprocess": "cafe"}, r"preprocess: .*did you mean caffe\?.*Received: 'cafe'"),
    ],
)
def test_wrap_refuses(make, arguments, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        backbones.wrap(make(), **arguments)


@pytest.mark.parametrize(("kind", "file"), [("pooled", ""), ("pyramid", "model.keras")])
def test_a_run_serves_as_a_backbone(kind: str, file: str, lite: Backbone, tmp_path: Path):
    encoder = lite.encoder(kind)
    outputs = encoder.output["32"] if kind == "pyramid" else encoder.output
    keras.Model(encoder.input, keras.layers.Dense(2)(outputs)).save(tmp_path / "model.keras")
    path = tmp_path / file
    again = load(f"run:{path}", weights="auto", image_size=0)
    assert (again.name, again.blocks, again.pyramid) == (lite.name, lite.blocks, lite.pyramid)
    assert again.origin.source == f"run:{path}"
    np.testing.assert_allclose(again.encoder("pooled")(pixels()), lite.encoder("pooled")(pixels()), atol=1e-5)
    with pytest.raises(ValueError, match="trained with images of 32 pixels. Received: 64"):
        load(f"run:{tmp_path}", weights="auto", image_size=64)
    with pytest.raises(ValueError, match="backbone.weights: expected auto"):
        load(f"run:{tmp_path}", weights="none")


def test_a_preset_folder_brings_its_preprocessing(tmp_path: Path):
    import keras_hub

    model = keras_hub.models.VGGBackbone(stackwise_num_repeats=[1, 1, 2], stackwise_num_filters=[4, 4, 8])
    model.save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="does not say how its images are scaled"):
        load(str(tmp_path), weights="auto")
    converter = keras_hub.layers.VGGImageConverter(
        image_size=(48, 48), scale=[0.1, 0.2, 0.3], offset=[-1.0, -2.0, -3.0]
    )
    converter.save_to_preset(str(tmp_path))
    backbone = load(str(tmp_path), weights="auto", image_size=0)
    assert backbone.image_size == 48 and backbone.family == "keras_hub"
    assert [block.name for block in backbone.blocks] == ["block1", "block2", "block3"]
    expected = np.mean(model(converter(pixels(48))), axis=(1, 2))
    np.testing.assert_allclose(backbone.encoder("pooled")(pixels(48)), expected, atol=1e-4)
    random = load(str(tmp_path), image_size=64)
    assert random.origin.source == "random" and random.image_size == 64
    # A model made of it loads without this folder.
    backbone.encoder("pooled").save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(pixels(48)), expected, atol=1e-4)


def test_a_transformer_pools_as_its_family_does():
    import keras_hub

    model = keras_hub.models.ViTBackbone(
        image_shape=(SIZE, SIZE, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    backbone = backbones.wrap(model)
    np.testing.assert_allclose(backbone.encoder("pooled")(pixels()), model(pixels())[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="no maps of strides 4 to 32"):
        backbone.encoder("pyramid")


def test_a_text_preset_is_not_an_image_backbone(tmp_path: Path):
    import keras_hub

    keras_hub.models.BertBackbone(
        vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4, max_sequence_length=8
    ).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="expected an image backbone.*a BertBackbone"):
        pretrained.hub_backbone(str(tmp_path), 0, load_weights=False)


def test_a_preset_out_of_reach_says_how_to_bring_it(monkeypatch):
    import keras_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", unreachable)
    with pytest.raises(ValueError, match=r"resnet_50_imagenet.*no route to host.*save_to_preset\(FOLDER\)"):
        load("resnet_50_imagenet")

"""What every backbone of the registry promises: structure, blocks, preprocessing, toggles, inference mode, saving."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from keras_transfer import backbones, freezing
from keras_transfer.backbones import Backbone, InferenceMode
from keras_transfer.recipe import BackboneSpec
from keras_transfer.vision import blocks as graph
from keras_transfer.vision import families

BLOCKS = {
    "efficientnet_lite0": ["stem", *(f"block{n}" for n in range(1, 8))],
    "vgg16": [f"block{n}" for n in range(1, 6)],
    "resnet50": ["stem", "conv2", "conv3", "conv4", "conv5"],
    "resnet50_v2": ["stem", "conv2", "conv3", "conv4", "conv5"],
    "inception_v3": ["stem", *(f"mixed{n}" for n in range(11))],
    "inception_resnet_v2": ["stem", "block35", "block17", "block8"],
    "xception": [f"block{n}" for n in range(1, 15)],
    "mobilenet": ["stem", *(f"stage{n}" for n in range(1, 6))],
    "mobilenet_v2": ["stem", *(f"stage{n}" for n in range(1, 8))],
    "mobilenet_v3_small": ["stem", *(f"stage{n}" for n in range(1, 6))],
    "mobilenet_v3_large": ["stem", *(f"stage{n}" for n in range(1, 7))],
    "efficientnet_b0": ["stem", *(f"block{n}" for n in range(1, 8))],
    "efficientnet_v2_b0": ["stem", *(f"block{n}" for n in range(1, 7))],
    "densenet121": ["stem", "conv2", "conv3", "conv4", "conv5"],
    "convnext_tiny": ["stem", "stage0", "stage1", "stage2", "stage3"],
    "nasnet_mobile": ["stem", "stage1", "stage2", "stage3"],
}
"""One member or two of each family."""
TRAINED = ("vgg16",)
"""All others are slow, and their kinds are trained tiny in test_tasks."""
OTHERS = [name for name in families.ARCHITECTURES if name not in BLOCKS]
LARGE = {
    *OTHERS,
    *("inception_resnet_v2", "nasnet_mobile", "densenet121", "xception", "mobilenet_v3_large", "efficientnet_v2_b0"),
}
"""Slow: hundreds of layers, or the larger sizes of a family, or much like another."""
MODULES = {
    "vgg": "vgg16",
    "resnet": "resnet",
    "resnet_v2": "resnet_v2",
    "mobilenet_v3_small": "mobilenet_v3",
    "mobilenet_v3_large": "mobilenet_v3",
    "nasnet_mobile": "nasnet",
    "nasnet_large": "nasnet",
}
"""By family: its module in keras.applications, where that has another name."""


def build(name: str, size: int = 64) -> Backbone:
    smallest = families.ARCHITECTURES[name].family.smallest
    return backbones.load(BackboneSpec(name=name, weights="none", image_size=max(size, smallest)))


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in (*BLOCKS, *OTHERS)],
)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return build(request.param)


def batchnorms(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def calibrate(backbone: Backbone, pixels: np.ndarray) -> None:
    """Gives random weights the statistics of a batch: without them features of deep networks fade to nothing."""
    for layer in batchnorms(backbone.model):
        layer.momentum, layer.usual_momentum = 0.0, layer.momentum
    backbone.model(backbone.preprocess(keras.ops.convert_to_tensor(pixels)), training=True)
    for layer in batchnorms(backbone.model):
        layer.momentum = layer.usual_momentum


def test_structure_is_the_registrys(backbone: Backbone):
    known = families.ARCHITECTURES[backbone.name]
    assert backbone.model.count_params() == known.parameters
    assert (backbone.family, backbone.modality, backbone.origin.source) == (known.family.name, "image", "random")
    assert len(backbone.model.output.shape) == 4, "the classification head is left out"


def test_blocks_hold_every_layer_once_and_in_order(backbone: Backbone):
    names = [block.name for block in backbone.blocks]
    if backbone.name in BLOCKS:
        assert names == BLOCKS[backbone.name]
    assert len(set(names)) == len(names) >= 3
    held = [layer for block in backbone.blocks for layer in block.layers]
    assert len(set(held)) == len(held)
    assert set(held) == {
        layer.name for layer in backbone.model.layers if not isinstance(layer, keras.layers.InputLayer)
    }
    order = [layer.name for layer in backbone.model.layers]
    for block in backbone.blocks:
        positions = [order.index(layer) for layer in block.layers]
        assert positions == sorted(positions)
        assert any(backbone.model.get_layer(layer).weights for layer in block.layers)


def test_the_network_can_be_cut_after_every_block_that_says_so(backbone: Backbone):
    model, size = backbone.model, backbone.image_size
    ends = [block.output for block in backbone.blocks[:-1]]
    if backbone.family.startswith("nasnet"):
        assert ends == [""] * len(ends), "its cells see two cells back"
        return
    assert all(ends)
    end = graph.output_of(model, ends[len(ends) // 2])
    images = np.random.default_rng(0).uniform(-1, 1, (1, size, size, 3)).astype("float32")
    prefix, suffix = keras.Model(model.input, end), keras.Model(end, model.output)
    np.testing.assert_allclose(suffix(prefix(images)), model(images), rtol=0, atol=1e-6)


def test_names_do_not_depend_on_what_was_built_before(backbone: Backbone):
    keras.layers.Conv2D(1, 1), keras.layers.Add(), keras.layers.BatchNormalization(), keras.layers.Activation("relu")
    again = build(backbone.name)
    assert again.blocks == backbone.blocks
    assert dict(again.pyramid) == dict(backbone.pyramid)
    assert [w.path for w in again.model.weights] == [w.path for w in backbone.model.weights]


def test_pyramid_has_the_size_that_its_strides_say(backbone: Backbone):
    assert list(backbone.pyramid) == [4, 8, 16, 32]
    outputs = backbone.encoder("pyramid").output
    for stride in (4, 8, 16, 32):
        side = -(-backbone.image_size // stride)
        assert outputs[str(stride)].shape[1:3] == (side, side)


def test_preprocessing_is_the_familys(backbone: Backbone):
    size = 8
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")
    if backbone.family == "efficientnet_lite":
        expected = (pixels - 127) / 128
    else:
        module = MODULES.get(backbone.family, backbone.family)
        expected = importlib.import_module(f"keras.applications.{module}").preprocess_input(pixels.copy())
    inputs = keras.Input((size, size, 3))
    graph_of_it = keras.Model(inputs, keras.layers.Identity()(backbone.preprocess(inputs)))
    np.testing.assert_allclose(graph_of_it(pixels), expected, rtol=0, atol=2e-5)


def test_toggles_train_what_they_name(backbone: Backbone):
    kinds = {id(layer) for layer in batchnorms(backbone.model)}
    trainable = {
        variable.path
        for layer in backbone.model._flatten_layers(include_self=False)
        if id(layer) not in kinds
        for variable in layer._trainable_variables
    }
    assert freezing.apply(backbone, "none") == []
    assert set(freezing.apply(backbone, "all")) == trainable
    rows = freezing.describe(backbone)
    sizes = []
    for row in rows:
        assert set(freezing.apply(backbone, f"from:{row.name}")) == set(freezing.apply(backbone, f"last:{row.last}"))
        sizes.append(sum(int(np.prod(v.shape)) for v in backbone.model.trainable_variables))
        assert sizes[-1] == row.trains
    assert sizes == sorted(sizes, reverse=True)
    assert not any(layer.trainable for layer in batchnorms(backbone.model))
    last = {weight.path for name in backbone.blocks[-1].layers for weight in backbone.model.get_layer(name).weights}
    assert set(freezing.apply(backbone, "last:1")) <= last
    freezing.apply(backbone, "none")


@pytest.mark.parametrize(
    "name", [*TRAINED, *(pytest.param(n, marks=pytest.mark.slow) for n in BLOCKS if n not in TRAINED)]
)
def test_fine_tuning_changes_the_chosen_weights_alone(name: str, tmp_path):
    backbone = build(name, 32)
    encoder = backbone.encoder("pooled")
    assert encoder.output.dtype == "float32" and encoder.output.shape == (None, backbone.model.output.shape[-1])
    model = keras.Model(encoder.input, keras.layers.Dense(2, name="logits")(encoder.output))
    rng = np.random.default_rng(0)
    shape = (4, backbone.image_size, backbone.image_size, 3)
    pixels, labels = rng.uniform(0, 255, shape).astype("float32"), np.array([0, 1, 1, 1])
    calibrate(backbone, pixels)

    chosen = freezing.unfreeze(model, "last:1")
    assert chosen[-2:] == ["logits/kernel", "logits/bias"] and len(chosen) > 2
    before = freezing.snapshot(model)
    assert any("moving_mean" in path for path in before) == bool(batchnorms(backbone.model))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pixels, labels, epochs=1, verbose=0)
    unchanged = freezing.assert_only_changed(before, freezing.snapshot(model), chosen)
    assert len(unchanged) < len(chosen) / 2, "gradients flow through the wrapper"

    # Dropout and batch statistics would make the two differ.
    np.testing.assert_array_equal(model(pixels, training=True), model(pixels, training=False))

    file = tmp_path / "model.keras"
    model.save(file)
    loaded = keras.saving.load_model(file)
    assert any(isinstance(layer, InferenceMode) for layer in loaded.layers)
    np.testing.assert_allclose(loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0), atol=1e-5)
    assert freezing.unfreeze(loaded, "last:1") == chosen
    again = backbones.load(BackboneSpec(name=f"run:{file}"))
    assert again.blocks == backbone.blocks and again.preprocessing == backbone.preprocessing
    np.testing.assert_allclose(again.encoder("pooled")(pixels), encoder(pixels), atol=1e-5)

"""Freezing: what each policy names, what is then frozen, and what notices when it is not."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_transfer import backbones, freezing
from keras_transfer.backbones import InferenceMode
from keras_transfer.freezing import FreezePolicy

SIZE = 8


def small_network() -> keras.Model:
    """Two convolution stages with BatchNormalization and dropout, the second one residual."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="one_conv")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5, name="one_bn")(x)
    x = keras.layers.Dropout(0.5, name="one_drop")(x)
    y = keras.layers.Conv2D(4, 3, padding="same", name="two_conv")(x)
    y = keras.layers.BatchNormalization(momentum=0.5, name="two_bn")(y)
    x = keras.layers.Add(name="two_add")([x, y])
    x = keras.layers.Conv2D(4, 3, padding="same", name="three_conv")(x)
    x = keras.layers.LayerNormalization(name="three_norm")(x)
    return keras.Model(inputs, x, name="small")


def joined(network: keras.Model, wrapped: bool = True) -> keras.Model:
    pixels = keras.Input((SIZE, SIZE, 3))
    features = InferenceMode(network)(pixels) if wrapped else network(pixels, training=False)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    return keras.Model(pixels, keras.layers.Dense(2, name="logits")(pooled))


def fitted(model: keras.Model, epochs: int = 2) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.normal(3, 2, (8, SIZE, SIZE, 3)).astype("float32"), np.arange(8) % 2
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pixels, labels, epochs=epochs, verbose=0)


HEAD = ["logits/kernel", "logits/bias"]
THREE = ["three_conv/kernel", "three_conv/bias", "three_norm/gamma", "three_norm/beta"]
TWO = ["two_conv/kernel", "two_conv/bias"]
ONE = ["one_conv/kernel", "one_conv/bias"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", FreezePolicy()),
        ("last:0", FreezePolicy()),
        ("last:3", FreezePolicy("last", number=3)),
        ("from:conv5", FreezePolicy("from", names=("conv5",))),
        (" all ", FreezePolicy("all")),
        ("layers:a*, b", FreezePolicy("layers", names=("a*", "b"))),
        ("lora:8", FreezePolicy("lora", number=8)),
        ("bias", FreezePolicy("bias")),
    ],
)
def test_parse(text: str, expected: FreezePolicy):
    assert FreezePolicy.parse(text) == expected
    assert FreezePolicy.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["auto", "last", "last:x", "last:-1", "last:1.5", "lora:0", "from:", "from:a,b", "layers:", "none:1", "", "2"],
)
def test_parse_refuses(text: str):
    with pytest.raises(ValueError, match=r"trainable: expected one of none, last:N.*Received: "):
        FreezePolicy.parse(text)


def test_parse_suggests():
    with pytest.raises(ValueError, match="did you mean last"):
        FreezePolicy.parse("lst:2")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", []),
        ("last:1", THREE),
        ("last:2", TWO + THREE),
        ("last:3", ONE + TWO + THREE),
        ("all", ONE + TWO + THREE),
        ("from:two_conv", TWO + THREE),
        ("from:two_add", THREE),
        ("from:three", THREE),
        ("from:three_norm", THREE[2:]),
        ("layers:one_*,three_norm", ONE + THREE[2:]),
        ("layers:*/kernel", [ONE[0], TWO[0], THREE[0]]),
        ("bias", [ONE[1], TWO[1], THREE[1]]),
        ("norms", ["one_bn/gamma", "one_bn/beta", "two_bn/gamma", "two_bn/beta", *THREE[2:]]),
    ],
)
def test_what_each_policy_trains(policy: str, expected: list[str]):
    model = joined(small_network())
    assert freezing.unfreeze(model, policy) == [*expected, *HEAD]
    before = freezing.snapshot(model)
    assert "one_bn/moving_mean" in before and "one_bn/gamma" in before
    fitted(model)
    assert freezing.assert_only_changed(before, freezing.snapshot(model), [*expected, *HEAD]) == []
    # Back again: no flag lasts.
    assert freezing.freeze(model) == HEAD


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("last:4", r"N up to 3.*3 blocks \(one_conv, two_conv, three_conv\)"),
        ("from:tree_conv", r"no block or layer 'tree_conv' \(did you mean three_conv\?\); blocks: one_conv"),
        ("layers:conv9*", "no weights that can train and match"),
        ("layers:two_bn", "no weights that can train and match"),
    ],
)
def test_policies_that_do_not_fit_change_nothing(policy: str, complaint: str):
    model = joined(small_network())
    freezing.unfreeze(model, "last:1")
    with pytest.raises(ValueError, match=complaint):
        freezing.unfreeze(model, policy)
    assert [v.path for v in model.trainable_variables] == [*THREE, *HEAD]


def test_without_the_wrapper_batchnorm_is_frozen_all_the_same():
    model = joined(small_network(), wrapped=False)
    assert freezing.unfreeze(model, "all") == [*ONE, *TWO, *THREE, *HEAD]
    before = freezing.snapshot(model)
    fitted(model)
    freezing.assert_only_changed(before, freezing.snapshot(model), [*ONE, *TWO, *THREE, *HEAD])
    # Scales of BatchNormalization would train on moving statistics only behind the wrapper.
    assert freezing.unfreeze(model, "norms") == [*THREE[2:], *HEAD]


def test_batchnorm_trains_where_asked():
    model = joined(small_network())
    chosen = freezing.apply(model, "from:two_conv", batchnorm="train")
    assert chosen == [*TWO, "two_bn/gamma", "two_bn/beta", *THREE]
    moving = model.layers[1].model.get_layer("two_bn")
    means = moving.moving_mean.numpy().copy()
    before = freezing.snapshot(model)
    assert "two_bn/moving_mean" not in before and "one_bn/moving_mean" in before
    fitted(model)
    freezing.assert_only_changed(before, freezing.snapshot(model), [*chosen, *HEAD])
    assert np.abs(moving.moving_mean.numpy() - means).max() > 0
    freezing.apply(model, "from:two_conv")
    assert model.layers[1].batchnorm == "frozen" and not moving.trainable


def test_the_guides_way_is_what_the_wrapper_mends():
    """The fact that this is built on: `network(x, training=False)` is overruled by `fit`."""
    network = small_network()
    model = joined(network, wrapped=False)
    before = network.get_layer("one_bn").moving_mean.numpy().copy()
    fitted(model, 1)
    assert np.abs(network.get_layer("one_bn").moving_mean.numpy() - before).max() > 0

    network = small_network()
    model = joined(network)
    before = network.get_layer("one_bn").moving_mean.numpy().copy()
    fitted(model, 1)
    np.testing.assert_array_equal(network.get_layer("one_bn").moving_mean.numpy(), before)


def test_a_backbone_and_the_model_made_of_it_are_one():
    backbone = backbones.wrap(small_network())
    encoder = backbone.encoder("pooled")
    model = keras.Model(encoder.input, keras.layers.Dense(2, name="logits")(encoder.output))
    assert freezing.apply(backbone, "last:1", batchnorm="train") == THREE
    assert backbone.wrappers[0].batchnorm == "train"
    assert [v.path for v in model.trainable_variables] == [*THREE, *HEAD]


def test_a_flat_model_has_its_head_behind_the_last_map():
    base = small_network()
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    model = keras.Model(base.input, keras.layers.Dense(2, name="logits")(pooled))
    assert freezing.freeze(model) == HEAD
    assert freezing.unfreeze(model, "last:1") == [*THREE, *HEAD]


def test_a_model_without_maps_is_all_backbone():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])
    assert freezing.freeze(model) == []
    assert [path.split("/")[-2] for path in freezing.unfreeze(model, "last:1")] == ["b", "b"]
    assert len(freezing.unfreeze(model, "all")) == 4


def test_a_nested_backbone_is_found_beside_a_larger_head():
    pixels = keras.Input((SIZE, SIZE, 3))
    head = keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(500, name="wide"), keras.layers.Dense(2, name="out")]
    )
    model = keras.Model(pixels, head(small_network()(pixels)))
    paths = freezing.freeze(model)
    assert [path.split("/")[-2] for path in paths] == ["wide", "wide", "out", "out"]


def test_flags_of_outer_and_inner_layers_are_set_each():
    model = joined(small_network())
    model.trainable = False
    assert freezing.unfreeze(model, "last:1") == [*THREE, *HEAD]
    model.trainable = True
    assert freezing.freeze(model) == HEAD


def test_adapters_train_beside_frozen_kernels():
    network = small_network()
    model = joined(network)
    before = network(np.ones((1, SIZE, SIZE, 3), "float32")).numpy()
    paths = freezing.unfreeze(model, "lora:2")
    assert paths[:2] == ["one_conv/lora_kernel_a", "one_conv/lora_kernel_b"] and len(paths) == 6 + 2
    np.testing.assert_allclose(network(np.ones((1, SIZE, SIZE, 3), "float32")), before, atol=1e-6)
    snapshot = freezing.snapshot(model)
    fitted(model)
    freezing.assert_only_changed(snapshot, freezing.snapshot(model), paths)
    assert freezing.unfreeze(model, "lora:2") == paths, "the adapters are added once"
    assert freezing.freeze(model) == HEAD


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", "three_conv"),
        ("last:1", "two_conv"),
        ("from:three_norm", "two_conv"),
        ("last:2", "one_conv"),
        ("all", None),
        ("layers:two_conv", "one_conv"),
    ],
)
def test_boundary(policy: str, expected: str | None):
    backbone = backbones.wrap(small_network())
    assert freezing.boundary(backbone, policy) == expected


def test_describe():
    rows = freezing.describe(backbones.wrap(small_network()))
    assert [(row.name, row.last) for row in rows] == [("one_conv", 3), ("two_conv", 2), ("three_conv", 1)]
    assert [layer.name for layer in rows[0].layers] == ["one_conv", "one_bn", "one_drop"]
    assert rows[0].parameters == (27 * 4 + 4) + 16
    assert [row.trains for row in rows] == [112 + 148 + 156, 148 + 156, 156]


def test_paces_fall_from_block_to_block():
    backbone = backbones.wrap(small_network())
    encoder = backbone.encoder("pooled")
    model = keras.Model(encoder.input, keras.layers.Dense(2, name="logits")(encoder.output))
    freezing.apply(backbone, "last:2")
    assert freezing.paces(model, backbone, 1.0) == {}
    paces = freezing.paces(model, backbone, 0.5)
    assert paces == {**dict.fromkeys(TWO, 0.25), **dict.fromkeys(THREE, 0.5), **dict.fromkeys(HEAD, 1.0)}


def test_a_changed_frozen_weight_is_noticed():
    model = joined(small_network())
    chosen = freezing.freeze(model)
    before = freezing.snapshot(model)
    kernel = model.layers[1].model.get_layer("one_conv").kernel
    value = kernel.numpy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(9))
    kernel.assign(value)
    with pytest.raises(RuntimeError, match="1 frozen weights changed in training, among them one_conv/kernel"):
        freezing.assert_only_changed(before, freezing.snapshot(model), chosen)
    assert freezing.assert_only_changed(before, freezing.snapshot(model), ["one_conv/kernel", *chosen]) == chosen

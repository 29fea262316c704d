"""BoundaryCache: where a network is cut, that the parts are the whole, what is refused, and what pays."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_freezing import SIZE, small_network

from keras_transfer import backbones, boundary_cache, freezing
from keras_transfer.boundary_cache import Estimate, NoBoundary, cut
from keras_transfer.recipe import Phase
from keras_transfer.tasks.base import Examples

TUNE = Phase(epochs=2, learning_rate=0.05, trainable="last:1")


def parts_of(phase: Phase = TUNE, network: keras.Model | None = None):
    keras.utils.set_random_seed(0)
    backbone = backbones.wrap(network or small_network())
    encoder = backbone.encoder("pooled")
    features = keras.Input(encoder.output.shape[1:])
    head = keras.Model(features, keras.layers.Dense(2, name="logits")(features), name="head")
    model = keras.Model(encoder.input, head(encoder.output))
    freezing.apply(backbone, phase.trainable, phase.batchnorm)
    return cut(backbone, encoder, head, phase), model


def pixels(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (count, SIZE, SIZE, 3)).astype("float32")


@pytest.mark.parametrize("trainable", ["last:1", "last:2", "from:two_conv", "layers:three_*"])
def test_the_parts_are_the_whole(trainable):
    parts, model = parts_of(replace(TUNE, trainable=trainable))
    assert parts.extras == ()
    np.testing.assert_allclose(parts.suffix(parts.prefix(pixels())), model(pixels()), atol=1e-6)
    assert [v.path for v in parts.suffix.trainable_variables] == [v.path for v in model.trainable_variables]


def test_what_trains_above_is_what_the_joined_model_holds():
    parts, model = parts_of()
    before = model(pixels()).numpy()
    activations = parts.prefix(pixels())
    parts.suffix.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    parts.suffix.fit(activations, np.array([0, 1, 0, 1]), epochs=2, verbose=0)
    assert np.abs(model(pixels()).numpy() - before).max() > 1e-3
    np.testing.assert_allclose(parts.suffix(activations), model(pixels()), atol=1e-6)


@pytest.mark.parametrize("trainable", ["all", "last:3"])
def test_nothing_below_what_trains(trainable):
    with pytest.raises(NoBoundary, match=trainable):
        parts_of(replace(TUNE, trainable=trainable))


def test_nothing_trains():
    with pytest.raises(NoBoundary, match="nothing of the backbone"):
        parts_of(replace(TUNE, trainable="none"))


def test_dropout_below_that_stays_active_is_no_constant():
    with pytest.raises(NoBoundary, match="dropout"):
        parts_of(replace(TUNE, batchnorm="train"))


def test_texts_take_their_mask_along():
    parts, model = text_parts()
    assert parts.extras == ("padding_mask",)
    inputs = tokens()
    activations = parts.prefix(inputs)
    whole = model(inputs)
    again = parts.suffix({"boundary": activations, "padding_mask": inputs["padding_mask"]})
    np.testing.assert_allclose(again, whole, atol=1e-6)
    # What stands at padding is of no account: the cache leaves it out.
    blank = activations * tf.cast(inputs["padding_mask"], tf.float32)[..., None]
    np.testing.assert_allclose(
        parts.suffix({"boundary": blank, "padding_mask": inputs["padding_mask"]}), whole, atol=1e-6
    )


def tokens() -> dict[str, tf.Tensor]:
    mask = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]], "int32")
    ids = np.random.default_rng(0).integers(1, 30, mask.shape).astype("int32") * mask
    return {"token_ids": tf.constant(ids), "padding_mask": tf.constant(mask), "segment_ids": tf.zeros_like(mask)}


def text_parts(trainable: str = "last:1"):
    keras.utils.set_random_seed(0)
    backbone = tiny_bert()
    encoder = backbone.encoder("pooled")
    features = keras.Input(encoder.output.shape[1:])
    head = keras.Model(features, keras.layers.Dense(2, name="logits")(features), name="head")
    freezing.apply(backbone, trainable)
    phase = replace(TUNE, trainable=trainable)
    return cut(backbone, encoder, head, phase), keras.Model(encoder.input, head(encoder.output))


def tiny_bert() -> backbones.Backbone:
    from keras_hub.models import BertBackbone

    from keras_transfer.text import networks
    from keras_transfer.weights import WeightsOrigin

    bert = BertBackbone(30, 3, 2, 8, 16, dropout=0.5, max_sequence_length=8)
    model = networks.network(bert, "mean")
    origin = WeightsOrigin("random", "none", "random")
    return backbones.Backbone("tiny", "Bert", "text", model, networks.blocks(model), origin, pooling="mean")


def test_examples_that_cannot_give_the_mask_in_batches_are_refused():
    parts, _ = text_parts()
    lonely = Examples(ids=["a"], load=lambda index: None, meta=[{}], lengths=np.array([3]), key="x")
    assert "padding_mask" in boundary_cache.why_not(parts, lonely)
    images, _ = parts_of()
    assert boundary_cache.why_not(images, replace(lonely, lengths=None)) == ""
    assert "padding" in boundary_cache.why_not(images, lonely)


def test_what_is_saved_grows_with_the_epochs():
    fast_read = Estimate(compute=0.010, read=0.0001, bytes=4)
    assert fast_read.saved(1_000, 0, 1) < 0 < fast_read.saved(1_000, 0, 5) < fast_read.saved(1_000, 0, 10)
    slow_read = Estimate(compute=0.010, read=0.02, bytes=4)
    assert slow_read.saved(1_000, 200, 100) < 0


def test_a_few_batches_are_measured():
    parts, _ = parts_of()
    table = tf.constant(pixels(8))
    data = Examples(
        ids=[str(n) for n in range(8)],
        load=lambda index: ({"pixels": tf.gather(table, index)}, {"label": tf.cast(index % 2, tf.int32)}),
        meta=[{}] * 8,
        targets={"label": np.arange(8, dtype="int32") % 2},
        key="k",
    )
    found = boundary_cache.measure(parts, data)
    assert found.compute > 0 and found.read > 0
    assert found.bytes == 4 * np.prod(parts.prefix.output.shape[1:])

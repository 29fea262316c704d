"""GELU in one pass: the same values and gradients, where it is GELU and only while a step is traced."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import fused_gelu


def by_tanh(x):
    return keras.activations.gelu(x, approximate=True)


def by_erf(x):
    return keras.activations.gelu(x, approximate=False)


def nearly(x):
    """Another function that people take for GELU; up to 0.02 away."""
    return x * keras.ops.sigmoid(1.702 * x)


def wants_two_axes(x):
    return keras.ops.softmax(x, axis=1)


@pytest.mark.parametrize("gelu", [by_tanh, by_erf])
@pytest.mark.parametrize(("dtype", "near"), [("float32", 2e-5), ("bfloat16", 2e-2)])
def test_values_and_gradients_are_the_same(gelu, dtype, near):
    x = tf.cast(tf.reshape(tf.linspace(-8.0, 8.0, 3 * 700), [3, 700]), dtype)
    upstream = tf.cast(tf.reshape(tf.linspace(-2.0, 2.0, 3 * 700), [3, 700]), dtype)
    found = []
    for function in (gelu, fused_gelu.fused(gelu)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        found.append((y, tape.gradient(y, x, upstream)))
    assert fused_gelu.fused(gelu) is not gelu
    for ours, plain in zip(found[1], found[0], strict=True):
        assert ours.dtype == plain.dtype == dtype
        np.testing.assert_allclose(np.asarray(ours, "float32"), np.asarray(plain, "float32"), atol=near, rtol=1e-2)


@pytest.mark.parametrize("other", [nearly, wants_two_axes, keras.activations.elu, keras.activations.relu])
def test_other_functions_stay(other):
    assert fused_gelu.fused(other) is other


def test_where_xla_is_missing_it_stays(monkeypatch):
    def without_xla(x):
        raise tf.errors.UnimplementedError(None, None, "no XLA")

    monkeypatch.setattr(fused_gelu, "_one_pass", lambda approximate: without_xla)
    assert fused_gelu.fused(by_tanh) is by_tanh


def test_layers_have_their_own_activation_again_after_an_error():
    layers = [keras.layers.Dense(4, activation=by_erf), keras.layers.Dense(4, activation="relu")]
    own = [layer.activation for layer in layers]
    with pytest.raises(KeyError), fused_gelu.in_one_pass(layers):
        assert layers[0].activation is not own[0] and layers[1].activation is own[1]
        raise KeyError
    assert [layer.activation for layer in layers] == own


def test_a_step_of_several_devices_stays_as_it_is(monkeypatch):
    layer = keras.layers.Dense(4, activation=by_erf)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: types.SimpleNamespace(num_replicas_in_sync=2))
    with fused_gelu.in_one_pass([layer]):
        assert layer.activation is by_erf

"""Tests of `schedules`: each variable has its own pace, weight decay included."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.recipe import Phase
from keras_transfer.schedules import PacedAdamW, optimizer_for

STILL = tf.zeros([2, 2])


def kernels(*names: str) -> list[keras.Variable]:
    return [keras.Variable(np.ones((2, 2), np.float32), name=name) for name in names]


def test_weight_decay_goes_at_the_pace_of_its_layer() -> None:
    variables = kernels("slow", "still", "fast")
    optimizer = PacedAdamW(learning_rate=0.1, weight_decay=0.5, paces={"slow": 0.1, "still": 0.0})
    optimizer.build(variables)
    optimizer.apply([STILL] * 3, variables)
    slow, still, fast = (float(variable.numpy()[0, 0]) for variable in variables)
    assert (slow, still, fast) == pytest.approx((1 - 0.1 * 0.1 * 0.5, 1.0, 1 - 0.1 * 0.5))


def test_without_paces_it_is_the_adamw_of_keras() -> None:
    ours, theirs = kernels("a", "b"), kernels("a", "b")
    gradients = [tf.constant([[1.0, -2.0], [3.0, 0.5]]), tf.constant([[0.1, 0.2], [-0.3, 0.0]])]
    optimizers = [
        PacedAdamW(learning_rate=0.01, weight_decay=0.1),
        keras.optimizers.AdamW(learning_rate=0.01, weight_decay=0.1),
    ]
    for optimizer, variables in zip(optimizers, (ours, theirs), strict=True):
        optimizer.exclude_from_weight_decay(var_list=variables[1:])
        optimizer.build(variables)
        for _ in range(3):
            optimizer.apply(gradients, variables)
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-6)


@pytest.mark.parametrize("decay", [None, 0.0])
def test_no_weight_decay_leaves_what_has_no_gradient(decay: float | None) -> None:
    (variable,) = kernels("a")
    optimizer = optimizer_for(Phase(learning_rate=0.1, weight_decay=decay, warmup_share=0.0), [variable], 4)
    optimizer.build([variable])
    optimizer.apply([STILL], [variable])
    assert (variable.numpy() == 1.0).all()


def test_biases_and_norms_do_not_decay() -> None:
    kernel, bias = kernels("kernel")[0], keras.Variable(np.ones(2, np.float32), name="bias")
    optimizer = optimizer_for(Phase(learning_rate=0.1, weight_decay=0.5, warmup_share=0.0), [kernel, bias], 4)
    optimizer.build([kernel, bias])
    optimizer.apply([STILL, tf.zeros([2])], [kernel, bias])
    assert kernel.numpy().max() < 1.0 and (bias.numpy() == 1.0).all()

"""Mask decoder: from a pyramid of features to a class for every pixel, and the loss that trains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.vision.masks import IGNORE

WIDTH = 64
"""Channels of the decoder."""
GROUPS = 8
"""Of GroupNormalization, whose statistics do not depend on the batch: batches of masks are small."""
DICE_SHARE = 1.0
"""Of the Dice loss beside cross-entropy, as in nnU-Net (Isensee et al., 2021): both in equal parts."""
SMOOTH = 1.0
"""Pixels added to both sides of the Dice ratio, so that a class of few pixels does not jump between 0 and 1."""


def build(
    features: Mapping[str, Any], classes: int, size: int, width: int = WIDTH, dropout: float = 0.0, seed: int = 0
) -> keras.Model:
    inputs = {
        stride: keras.Input(shape=spec.shape[1:], dtype=spec.dtype, name=stride) for stride, spec in features.items()
    }
    strides = sorted(inputs, key=int, reverse=True)
    x = None
    for stride in strides:
        level = keras.layers.Conv2D(width, 1, use_bias=False, name=f"lateral_{stride}")(inputs[stride])
        level = _normed(level, f"lateral_{stride}")
        if x is not None:
            level = keras.layers.Add(name=f"add_{stride}")([level, _resized(x, level.shape[1:3])])
        x = _block(level, width, f"fuse_{stride}")
    x = _block(x, width, "last")
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    logits = keras.layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)
    return keras.Model(inputs, _resized(logits, (size, size)), name="head")


def _normed(x, name):
    x = keras.layers.GroupNormalization(GROUPS, name=f"{name}_norm")(x)
    return keras.layers.Activation("swish", name=f"{name}_swish")(x)


def _block(x, width, name):
    x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _normed(x, name)


def _resized(x, sides):
    if tuple(x.shape[1:3]) == tuple(sides):
        return x
    return keras.ops.image.resize(x, tuple(sides), interpolation="bilinear")


def loss(targets: tf.Tensor, logits: tf.Tensor, weights: np.ndarray | None = None) -> tf.Tensor:
    """Cross-entropy and soft Dice of each example, in float32, over the pixels that count."""
    logits = tf.cast(logits, tf.float32)
    classes = logits.shape[-1]
    counted = tf.cast(targets != IGNORE, tf.float32)
    labels = tf.where(targets != IGNORE, tf.cast(targets, tf.int32), 0)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    weight = counted if weights is None else counted * tf.gather(tf.constant(weights, tf.float32), labels)
    entropy = tf.reduce_sum(entropy * weight, [1, 2]) / tf.maximum(tf.reduce_sum(counted, [1, 2]), 1.0)
    shown = tf.one_hot(labels, classes) * counted[..., tf.newaxis]
    given = tf.nn.softmax(logits) * counted[..., tf.newaxis]
    overlap, real, guessed = (tf.reduce_sum(value, [1, 2]) for value in (shown * given, shown, given))
    dice = (2 * overlap + SMOOTH) / (real + guessed + SMOOTH)
    present = tf.cast(real > 0, tf.float32)
    missed = tf.reduce_sum((1 - dice) * present, 1) / tf.maximum(tf.reduce_sum(present, 1), 1.0)
    return entropy + DICE_SHARE * missed

"""Changes of an image's colours: float32 [H, W, 3], RGB, 0-255, to the same."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Share of red, green and blue in the brightness of a pixel (ITU-R BT.601, as Pillow)."""
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_TO_YIQ = _TO_YIQ.astype(np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype(np.float32)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's kernel SMOOTH, from which its `Sharpness` starts."""


def adjust(
    image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor, saturation: tf.Tensor, hue: tf.Tensor
) -> tf.Tensor:
    """All four in one linear map of the pixels, so that they cost one pass.

    Args:
        image: float32 [H, W, 3], 0-255.
        brightness: factor of all values.
        contrast: factor of the distance from the mean brightness of the image.
        saturation: factor of the distance from grey.
        hue: rotation about the grey axis (in YIQ) in turns.
    """
    # Grey stays under the maps of saturation and hue, hence the shift of contrast needs no map.
    mean = tf.tensordot(tf.reduce_mean(image, [0, 1]), LUMINANCE, 1)
    shift = (1 - contrast) * brightness * mean
    to_grey = tf.constant(np.tile(LUMINANCE, (3, 1)))
    saturate = saturation * tf.eye(3) + (1 - saturation) * to_grey
    sine, cosine = tf.sin(2 * math.pi * hue), tf.cos(2 * math.pi * hue)
    zero, one = tf.zeros([]), tf.ones([])
    turn = tf.reshape(tf.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine]), [3, 3])
    linear = brightness * contrast * (_FROM_YIQ @ turn @ _TO_YIQ @ saturate)
    changed = tf.reshape(tf.matmul(tf.reshape(image, [-1, 3]), linear, transpose_b=True), tf.shape(image)) + shift
    return clip(tf.ensure_shape(changed, image.shape))


def clip(image: tf.Tensor) -> tf.Tensor:
    """Values below 0 and above 255 become these."""
    return tf.clip_by_value(image, 0.0, 255.0)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0-255; a channel of one value stays."""
    low, high = tf.reduce_min(image, [0, 1]), tf.reduce_max(image, [0, 1])
    return clip(tf.where(high > low, (image - low) * tf.math.divide_no_nan(255.0, high - low), image))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Spreads the values of each channel evenly over 0-255, as Pillow does; a channel of one value stays."""
    levels = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.int32)
    spread = [_equalize_channel(levels[..., channel]) for channel in range(3)]
    return tf.cast(tf.stack(spread, -1), tf.float32)


def solarize(image: tf.Tensor, threshold: float) -> tf.Tensor:
    """Inverts the values from a threshold (0-256) on."""
    return tf.where(image < threshold, image, 255 - image)


def posterize(image: tf.Tensor, bits: int) -> tf.Tensor:
    """Keeps so many bits of each value, 1 to 8."""
    step = 2.0 ** (8 - bits)
    return tf.floor(image / step) * step


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves each value away from its smoothed neighbourhood (above 1) or towards it (below 1); borders stay."""
    kernel = tf.constant(np.tile(_SMOOTH[:, :, None, None], (1, 1, 3, 1)))
    smooth = tf.nn.depthwise_conv2d(image[tf.newaxis], kernel, [1, 1, 1, 1], "VALID")[0]
    inner = smooth + factor * (image[1:-1, 1:-1] - smooth)
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], 1)
    return clip(tf.ensure_shape(tf.concat([image[:1], middle, image[-1:]], 0), image.shape))


def _equalize_channel(levels: tf.Tensor) -> tf.Tensor:
    """int32 [H, W], 0-255, spread evenly."""
    counts = tf.math.bincount(tf.reshape(levels, [-1]), minlength=256, maxlength=256)
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0))
    step = (tf.reduce_sum(counts) - counts[last]) // 255
    table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
    return tf.where(step > 0, tf.gather(tf.minimum(table, 255), levels), levels)

"""Affine maps of an image's plane: several movements in one matrix, and one resampling for all of them.

Points count in pixels from the outer corner of the first one, whose middle is (0.5, 0.5), as boxes do. A matrix takes
(x, y, 1) of the image before to (x, y, 1) of the image after, so that boxes move as the pixels do.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf


def identity() -> tf.Tensor:
    """float32 [3, 3]: every point stays."""
    return tf.eye(3)


def translation(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """float32 [3, 3]: moves by x to the right and y down, in pixels."""
    return _matrix(1.0, 0.0, x, 0.0, 1.0, y)


def scaling(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """float32 [3, 3]: stretches both axes from the corner; -1 mirrors."""
    return _matrix(x, 0.0, 0.0, 0.0, y, 0.0)


def shear(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """float32 [3, 3]: slants by x pixels to the right a row and y pixels down a column."""
    return _matrix(1.0, x, 0.0, y, 1.0, 0.0)


def rotation(degrees: tf.Tensor) -> tf.Tensor:
    """float32 [3, 3]: turns clockwise (y points down) about the corner."""
    angle = degrees * (3.141592653589793 / 180)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return _matrix(cosine, -sine, 0.0, sine, cosine, 0.0)


def compose(*matrices: tf.Tensor) -> tf.Tensor:
    """float32 [3, 3]: the maps one after the other, the first one first."""
    total = matrices[0]
    for matrix in matrices[1:]:
        total = tf.matmul(matrix, total)
    return total


def about(x: tf.Tensor, y: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """float32 [3, 3]: the map with its origin at (x, y)."""
    return compose(translation(-x, -y), matrix, translation(x, y))


def warp(
    image: tf.Tensor,
    matrix: tf.Tensor,
    interpolation: Literal["bilinear", "nearest"] = "bilinear",
    fill: float | None = None,
) -> tf.Tensor:
    """The image after the map, at the same size.

    Args:
        image: [H, W, C], float32 (pixels, 0-255) or an integer type with `nearest` (a mask).
        matrix: float32 [3, 3], affine, invertible.
        interpolation: `bilinear` for pixels, `nearest` for masks.
        fill: the value of what comes from outside the image; None mirrors the image at its borders.

    Returns:
        [H, W, C], the same dtype.
    """
    a, b, c, d, e, f = tf.unstack(tf.reshape(matrix, [9])[:6])
    # The inverse, since each pixel after the map is looked up in the image before it.
    scale = 1 / (a * e - b * d)
    a, b, d, e, c, f = e * scale, -b * scale, -d * scale, a * scale, (b * f - c * e) * scale, (c * d - a * f) * scale
    # The operation counts from the middle of the first pixel.
    transform = tf.stack([a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, 0.0, 0.0])
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0 if fill is None else fill,
        interpolation=interpolation.upper(),
        fill_mode="REFLECT" if fill is None else "CONSTANT",
    )[0]
    return tf.ensure_shape(warped, image.shape)


def _matrix(*upper: tf.Tensor | float) -> tf.Tensor:
    """float32 [3, 3] from its first two rows."""
    return tf.reshape(tf.stack([*(tf.cast(part, tf.float32) for part in upper), 0.0, 0.0, 1.0]), [3, 3])

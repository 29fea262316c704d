"""MixUp and CutMix: each image of a batch with a part of its neighbour, and the targets in the same shares."""

from __future__ import annotations

import tensorflow as tf

_STREAM = 0x6D6978
"""Folded into the seeds, so that mixing draws other numbers than the augmentation of the single image."""


def mix(
    images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor, mixup: float, cutmix: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image with the one before it in the batch (the first with the last).

    MixUp (Zhang et al., 2018, arXiv 1710.09412) adds both images, CutMix (Yun et al., 2019, arXiv 1905.04899) sets a
    rectangle of the one into the other. With both, each image draws one of them evenly. The image keeps the larger
    share, so that no pair is used twice in the same shares.

    Args:
        images: float32 [B, H, W, 3], 0-255; B may be 0.
        targets: float [B, C], one-hot, several-hot or shares.
        seeds: int32 [B, 2], one an image.
        mixup: parameter of the Beta(mixup, mixup) distribution of the shares; 0 is no MixUp.
        cutmix: the same of CutMix.

    Returns:
        Images and targets of the same shapes and dtypes.
    """
    draws = tf.map_fn(
        lambda seed: _draws(seed, mixup, cutmix), seeds, fn_output_signature=tf.TensorSpec([5], tf.float32)
    )
    add_share, cut_share, centre_y, centre_x, choice = tf.unstack(draws, axis=1)
    weights, shares = _add_weights(add_share)
    if cutmix:
        cut_weights, cut_shares = _cut_weights(cut_share, centre_y, centre_x, tf.shape(images)[1], tf.shape(images)[2])
        cuts = (choice < 0.5) if mixup else tf.fill(tf.shape(choice), True)
        weights = tf.where(cuts[:, tf.newaxis, tf.newaxis, tf.newaxis], cut_weights, weights)
        shares = tf.where(cuts, cut_shares, shares)
    before = tf.roll(images, 1, 0)
    shares = tf.cast(shares[:, tf.newaxis], targets.dtype)
    mixed = before + weights * (images - before)
    targets_mixed = shares * targets + (1 - shares) * tf.roll(targets, 1, 0)
    return tf.ensure_shape(mixed, images.shape), tf.ensure_shape(targets_mixed, targets.shape)


def _draws(seed: tf.Tensor, mixup: float, cutmix: float) -> tf.Tensor:
    """float32 [5] for one image: share of MixUp, share of CutMix, the rectangle's centre (y, x), choice."""
    seed = tf.random.experimental.stateless_fold_in(seed, _STREAM)
    uniform = tf.random.stateless_uniform([3], seed, alg="philox")
    shares = [_beta(seed, 1, mixup), _beta(seed, 2, cutmix)]
    return tf.concat([tf.stack(shares), uniform], 0)


def _beta(seed: tf.Tensor, stream: int, concentration: float) -> tf.Tensor:
    """float32 scalar from Beta(c, c), the larger side; 1 for c = 0."""
    if not concentration:
        return tf.ones([])
    seed = tf.random.experimental.stateless_fold_in(seed, stream)
    pair = tf.random.stateless_gamma([2], seed, alpha=concentration)
    # Both sides can underflow to 0 at a small concentration: then the image stays whole.
    share = tf.math.divide_no_nan(pair[0], pair[0] + pair[1])
    return tf.maximum(share, 1 - share)


def _add_weights(shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights [B, 1, 1, 1] of the own pixels, and shares [B] of the own targets, for MixUp."""
    return shares[:, tf.newaxis, tf.newaxis, tf.newaxis], shares


def _cut_weights(
    shares: tf.Tensor, centre_y: tf.Tensor, centre_x: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights [B, H, W, 1] of the own pixels (0 in the rectangle), and shares [B] of what is left of them."""
    side = tf.sqrt(1 - shares)
    rows, own_rows = _cut_side(centre_y, side, height)
    columns, own_columns = _cut_side(centre_x, side, width)
    weights = 1 - rows[:, :, tf.newaxis] * columns[:, tf.newaxis, :]
    return weights[..., tf.newaxis], 1 - own_rows * own_columns


def _cut_side(centre: tf.Tensor, side: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, length] of ones where the rectangle lies, cut off at the border, and [B] its share of the side."""
    size = tf.cast(length, tf.float32)
    middles = (tf.range(size) + 0.5) / size
    inside = tf.cast(tf.abs(middles - centre[:, tf.newaxis]) < side[:, tf.newaxis] / 2, tf.float32)
    return inside, tf.reduce_mean(inside, 1)

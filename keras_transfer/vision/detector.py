"""Detector: an anchor-free head over a pyramid, its targets, its loss, and its maps read back as boxes.

One map at stride 4 or 8, fused from all coarser levels, says for every cell how much each class has the middle of an
object there, and how far away the object's four sides are. One map serves objects of all sizes: the coarse levels
bring the sight, and the sides are predicted on a logarithmic scale. Sources: Zhou et al., Objects as Points (CenterNet,
2019, arXiv 1904.07850) for the heat map and its loss; Liu et al., TTFNet (2019, arXiv 1909.00700) for elliptic targets
and for learning the sides in all cells near the middle, which converges several times faster.

Why not keras_hub's RetinaNet (0.32): it starts with the focal prior on the boxes and none on the classes (the loss was
38 after 60 steps), cannot predict a second image size, takes some 4 GB, and its 100 boxes cut a picture of 279 objects.
Mended by hand it scored as this head does, which is a tenth of its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_transfer.vision import boxes as geometry

CHANNELS = 96
GROUPS = 8
PADDED, IGNORED = -1, -2
"""In place of a class: no box at all; and a box (a crowd, an object of which a sliver is left) inside which nothing is
punished, since what is found there may be right."""

PRIOR = 0.01
"""The chance of an object with which every cell starts, so that the many empty cells do not swamp the first steps (Lin
et al., 2017, arXiv 1708.02002)."""
SPREAD = 0.09
"""Standard deviation of the heat around an object's middle, as a share of its side: TTFNet's 0.54 / 6."""
LEAST_SPREAD = 0.5
"""The same in cells, at least: an object of two cells still has warm neighbours."""
NEAR = 0.3
"""Heat from which a cell learns the sides of the object."""
BOX_WEIGHT = 5.0
"""TTFNet's. With 2, on `trees_boxes`, small trees' sides came out a fifth too long, large ones' a tenth too short (one
run)."""
FOCUS, TOLERANCE = 2.0, 4.0
"""CenterNet's exponents: how much less the easy cells count, and how much less the cells near a middle."""
LARGEST_LOG = 6.0
"""Sides stay within a factor of 400 of where they start: no overflow, whatever is fed."""


def build_head(feature_spec: Mapping[str, Any], classes: int, stride: int, typical_side: float) -> keras.Model:
    """The head.

    Args:
        feature_spec: maps by stride written as text, KerasTensors [N, h, w, F], as `Backbone.encoder("pyramid")` gives.
        classes: number of classes.
        stride: of the map that answers, in pixels; the nearest one that the pyramid has is taken.
        typical_side: of an object in the input, in pixels: where the prediction of sides starts.

    Returns:
        A model from those maps to `heat` float32 [N, H, W, C], logits, and `sides` float32 [N, H, W, 4], the distances
        from the middle of the cell to left, top, right and bottom side in pixels.
    """
    inputs = {
        name: keras.Input(shape=level.shape[1:], dtype=level.dtype, name=name) for name, level in feature_spec.items()
    }
    strides = sorted(int(name) for name in inputs)
    finest = min(strides, key=lambda one: (abs(math.log2(one / stride)), one))
    x, coarser = None, 0
    for level in reversed([one for one in strides if one >= finest]):
        lateral = _convolution(inputs[str(level)], CHANNELS, 1, f"lateral_{level}")
        if x is None:
            x = lateral
        else:
            x = keras.layers.UpSampling2D(coarser // level, interpolation="bilinear", name=f"up_{level}")(x)
            extra = [big - small for big, small in zip(x.shape[1:3], lateral.shape[1:3], strict=True)]
            if any(extra):
                x = keras.layers.Cropping2D([(0, one) for one in extra], name=f"crop_{level}")(x)
            x = _convolution(keras.layers.Add(name=f"add_{level}")([x, lateral]), CHANNELS, 3, f"fused_{level}")
        coarser = level
    heat = _convolution(x, CHANNELS, 3, "heat_tower")
    sides = _convolution(x, CHANNELS, 3, "sides_tower")
    # float32 whatever the precision policy: heat and logarithms of sides need the digits.
    heat = keras.layers.Conv2D(
        classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(-math.log(1 / PRIOR - 1)),
        dtype="float32",
        name="heat",
    )(heat)
    logarithm = keras.layers.Conv2D(
        4,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(math.log(max(typical_side, 1.0) / 2 / finest)),
        dtype="float32",
        name="sides",
    )(sides)
    distances = keras.ops.exp(keras.ops.clip(logarithm, -LARGEST_LOG, LARGEST_LOG)) * float(finest)
    return keras.Model(inputs, {"heat": heat, "sides": distances}, name="head")


def _convolution(x: Any, channels: int, size: int, name: str) -> Any:
    """Convolution, GroupNormalization (batches are small, and BatchNormalization drifts in them), ReLU."""
    x = keras.layers.Conv2D(channels, size, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = keras.layers.GroupNormalization(GROUPS, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def stride_of(side: int, cells: int) -> int:
    """The stride of a map of so many cells a side, over an input of that side in pixels."""
    return 2 ** round(math.log2(side / cells))


def loss(
    targets: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor], side: int, typical_objects: float = 1.0
) -> tf.Tensor:
    """CenterNet's focal loss of the heat plus `BOX_WEIGHT` times the GIoU loss of the sides, of each example.

    Both are of all objects together, divided by how many an example usually has: each object then weighs the same, as
    where a batch is divided by its objects. Divided by its own number, a crowded example counted no more than an empty
    one, of which tiles of a photo have many.

    Args:
        targets: `boxes` float32 [B, M, 4] in pixels of the input; `classes` int32 [B, M], `PADDED` where there is no
            box, `IGNORED` where nothing is punished.
        outputs: of the head, any float type.
        side: of the input in pixels.
        typical_objects: of an example, on average over the training examples.

    Returns:
        float32 [B].
    """
    heat, sides = (tf.cast(outputs[name], tf.float32) for name in ("heat", "sides"))
    rows, columns, classes = heat.shape[1:]
    stride = float(stride_of(side, rows))
    boxes, of_class = tf.cast(targets["boxes"], tf.float32), targets["classes"]
    real = tf.cast(of_class >= 0, tf.float32)
    sizes = tf.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    near_x = _bell(middles[..., 0] / stride, sizes[..., 0] / stride, columns)
    near_y = _bell(middles[..., 1] / stride, sizes[..., 1] / stride, rows)
    near = near_y[..., :, tf.newaxis] * near_x[..., tf.newaxis, :] * real[..., tf.newaxis, tf.newaxis]
    total = _heat_loss(heat, _by_class(near, of_class, classes), _ignored(boxes, of_class, rows, columns, stride))
    objects = tf.reduce_sum(real, 1)
    return (total + BOX_WEIGHT * objects * _sides_loss(sides, boxes, near, stride)) / typical_objects


def _bell(middle: tf.Tensor, size: tf.Tensor, cells: int) -> tf.Tensor:
    """float32 [B, M] twice, in cells -> float32 [B, M, cells]: 1 in the cell of the middle, falling off around it."""
    cell = tf.clip_by_value(tf.floor(middle), 0.0, cells - 1.0)
    spread = tf.maximum(SPREAD * size, LEAST_SPREAD)
    away = tf.range(cells, dtype=tf.float32) - cell[..., tf.newaxis]
    return tf.exp(-tf.square(away / spread[..., tf.newaxis]) / 2)


def _by_class(near: tf.Tensor, of_class: tf.Tensor, classes: int) -> tf.Tensor:
    """float32 [B, M, H, W] -> float32 [B, H, W, C]: the warmest object of each class."""
    batch, most = tf.shape(near)[0], tf.shape(near)[1]
    if classes == 1:
        found = tf.maximum(tf.reduce_max(near, 1, keepdims=True), 0.0)
    else:
        places = tf.range(batch)[:, tf.newaxis] * classes + tf.maximum(of_class, 0)
        flat = tf.reshape(near, tf.concat([[batch * most], tf.shape(near)[2:]], 0))
        found = tf.math.unsorted_segment_max(flat, tf.reshape(places, [-1]), batch * classes)
        found = tf.reshape(tf.maximum(found, 0.0), tf.concat([[batch, classes], tf.shape(near)[2:]], 0))
    return tf.transpose(found, [0, 2, 3, 1])


def _ignored(boxes: tf.Tensor, of_class: tf.Tensor, rows: int, columns: int, stride: float) -> tf.Tensor:
    """float32 [B, H, W, 1]: 1 in the cells whose middle lies in a box inside which nothing is punished."""
    y, x = ((tf.range(count, dtype=tf.float32) + 0.5) * stride for count in (rows, columns))
    low, high = boxes[..., :2, tf.newaxis], boxes[..., 2:, tf.newaxis]
    inside_x = (x >= low[:, :, 0]) & (x <= high[:, :, 0]) & (of_class == IGNORED)[..., tf.newaxis]
    inside_y = (y >= low[:, :, 1]) & (y <= high[:, :, 1])
    # A matrix product over the boxes: how many hold each cell.
    held = tf.einsum("bmy,bmx->byx", tf.cast(inside_y, tf.float32), tf.cast(inside_x, tf.float32))
    return tf.cast(held > 0, tf.float32)[..., tf.newaxis]


def _heat_loss(heat: tf.Tensor, wanted: tf.Tensor, ignored: tf.Tensor) -> tf.Tensor:
    """float32 [B]: the sum over cells and classes."""
    chance = tf.sigmoid(heat)
    is_middle = tf.cast(wanted >= 1.0, tf.float32)
    found = -tf.pow(1 - chance, FOCUS) * tf.math.log_sigmoid(heat)
    empty = -tf.pow(chance, FOCUS) * tf.math.log_sigmoid(-heat) * tf.pow(1 - wanted, TOLERANCE) * (1 - ignored)
    return tf.reduce_sum(is_middle * found + (1 - is_middle) * empty, [1, 2, 3])


def _sides_loss(sides: tf.Tensor, boxes: tf.Tensor, near: tf.Tensor, stride: float) -> tf.Tensor:
    """float32 [B]: 1 - GIoU in the cells near a middle, the nearer the more; of several objects the smallest counts."""
    area = geometry.area(boxes)[..., tf.newaxis, tf.newaxis]
    cost = tf.where(near >= NEAR, area, math.inf)
    owner = tf.argmin(cost, 1, tf.int32)
    flat = tf.reshape(owner, [tf.shape(owner)[0], -1])
    wanted = tf.reshape(tf.gather(boxes, flat, batch_dims=1), tf.shape(sides))
    own = tf.reduce_max(tf.where(tf.equal(cost, tf.reduce_min(cost, 1, keepdims=True)), near, 0.0), 1)
    weight = tf.where(own >= NEAR, own, 0.0)
    each = 1 - geometry.generalised_overlap(boxes_of(sides, stride), wanted)
    return tf.math.divide_no_nan(tf.reduce_sum(weight * each, [1, 2]), tf.reduce_sum(weight, [1, 2]))


def boxes_of(sides: tf.Tensor, stride: float) -> tf.Tensor:
    """Distances float32 [N, H, W, 4] to boxes of the same shape, in pixels of the input."""
    rows, columns = sides.shape[1:3]
    y, x = ((tf.range(count, dtype=tf.float32) + 0.5) * stride for count in (rows, columns))
    x, y = x[tf.newaxis, tf.newaxis], y[tf.newaxis, :, tf.newaxis]
    left, top, right, bottom = tf.unstack(sides, axis=-1)
    return tf.stack([x - left, y - top, x + right, y + bottom], -1)


def read_maps(outputs: Mapping[str, tf.Tensor], side: int, most: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best places of the maps as boxes, before suppression.

    Args:
        outputs: of the head, NumPy or tensors of any float type.
        side: of the input in pixels.
        most: boxes an example.

    Returns:
        float32 [N, K, 4] in pixels of the input, float32 [N, K] scores from 0 to 1, best first, and int32 [N, K]
        classes; K is `most`, or the number of cells times classes where that is less.
    """
    heat, sides = (tf.cast(outputs[name], tf.float32) for name in ("heat", "sides"))
    rows, columns, classes = heat.shape[1:]
    chance = tf.sigmoid(heat)
    # The warmest cell among its eight neighbours speaks for them (CenterNet).
    peaks = tf.where(chance >= tf.nn.max_pool2d(chance, 3, 1, "SAME"), chance, 0.0)
    scores, best = tf.math.top_k(tf.reshape(peaks, [-1, rows * columns * classes]), min(most, rows * columns * classes))
    boxes = tf.reshape(boxes_of(sides, float(stride_of(side, rows))), [-1, rows * columns, 4])
    return tf.gather(boxes, best // classes, batch_dims=1), scores, best % classes

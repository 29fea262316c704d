"""Boxes in the graph: areas, overlaps, movements, and suppression of doubles; the same code trains and serves.

A box is x_min, y_min, x_max, y_max in pixels, as edges: a box of one pixel in the corner is 0, 0, 1, 1.
"""

from __future__ import annotations

import tensorflow as tf

FEW_CANDIDATES = 2_000
"""Suppression looks at the best so many: their overlaps are a table of 16 MB. Objects of one picture are rarely more
than a few hundred."""


def area(boxes: tf.Tensor) -> tf.Tensor:
    """float32 [..., n, 4] -> float32 [..., n]: the area in square pixels; 0 where a side is turned around."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def clip(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """float32 [..., 4]: the part of each box inside an image of that size in pixels."""
    most = tf.cast(tf.stack([width, height, width, height]), tf.float32)
    return tf.clip_by_value(boxes, 0.0, most)


def shared_area(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """float32 [n, 4] and [m, 4] -> float32 [n, m]: the area that each pair shares."""
    low = tf.maximum(boxes[:, tf.newaxis, :2], others[tf.newaxis, :, :2])
    high = tf.minimum(boxes[:, tf.newaxis, 2:], others[tf.newaxis, :, 2:])
    sides = tf.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


def overlap(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """float32 [n, 4] and [m, 4] -> float32 [n, m], 0 to 1: intersection over union of each pair."""
    shared = shared_area(boxes, others)
    return tf.math.divide_no_nan(shared, area(boxes)[:, tf.newaxis] + area(others)[tf.newaxis] - shared)


def generalised_overlap(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """float32 [..., 4] twice -> float32 [...], -1 to 1: GIoU of each box with its partner.

    Source: Rezatofighi et al., 2019, arXiv 1902.09630.
    """
    low, high = tf.maximum(boxes[..., :2], others[..., :2]), tf.minimum(boxes[..., 2:], others[..., 2:])
    sides = tf.maximum(high - low, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(boxes) + area(others) - shared
    around = tf.maximum(boxes[..., 2:], others[..., 2:]) - tf.minimum(boxes[..., :2], others[..., :2])
    hull = tf.maximum(around[..., 0], 0.0) * tf.maximum(around[..., 1], 0.0)
    return tf.math.divide_no_nan(shared, union) - tf.math.divide_no_nan(hull - union, hull)


def move(boxes: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """The boxes around the corners of each box after an affine map.

    Args:
        boxes: float32 [n, 4].
        matrix: float32 [3, 3]; takes (x, y, 1) before to (x, y, 1) after, in pixels (`vision.warping`).

    Returns:
        float32 [n, 4]; a turned box grows, since its sides stay level.
    """
    x = tf.gather(boxes, [0, 2, 0, 2], axis=1)
    y = tf.gather(boxes, [1, 1, 3, 3], axis=1)
    moved_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    moved_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    return tf.stack(
        [tf.reduce_min(moved_x, 1), tf.reduce_min(moved_y, 1), tf.reduce_max(moved_x, 1), tf.reduce_max(moved_y, 1)], 1
    )


def suppress(
    boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor, most: int, overlap_limit: float, least_score: float
) -> tf.Tensor:
    """Which boxes remain where several speak of one object: non-maximum suppression within each class.

    Of two boxes of one class that overlap more than the limit, the one with the lower score goes.

    Args:
        boxes: float32 [n, 4]; n may be 0.
        scores: float32 [n], 0 to 1.
        classes: int32 [n].
        most: how many boxes may remain.
        overlap_limit: intersection over union, 0 to 1.
        least_score: boxes below it go.

    Returns:
        int32 [k]: indices of the boxes that remain, best first, k at most `most`.
    """
    best = tf.math.top_k(scores, tf.minimum(tf.size(scores), FEW_CANDIDATES)).indices
    same = tf.gather(classes, best)[:, tf.newaxis] == tf.gather(classes, best)[tf.newaxis]
    near = tf.gather(boxes, best)
    overlaps = tf.where(same, overlap(near, near), 0.0)
    kept = tf.image.non_max_suppression_overlaps(overlaps, tf.gather(scores, best), most, overlap_limit, least_score)
    return tf.gather(best, kept)

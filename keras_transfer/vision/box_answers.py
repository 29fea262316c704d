"""Box answers: from the maps of a detector to boxes in the pixels of the photo; the same code scores and serves.

A view says how a photo, or a tile of it, lies in the input: float32 [8], scale and offset along x and y (a point x of
the photo comes to x * scale_x + offset_x), then x_min, y_min, x_max, y_max of the part that it answers for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from keras_transfer.vision import boxes as geometry
from keras_transfer.vision import detector, images, tiles
from keras_transfer.vision.tiles import FAR, Tiling

LEAST_SCORE = 0.05
"""What is reported at all; which boxes count is chosen on validation."""
OVERLAP_LIMIT = 0.5
MOST = 500
"""Boxes a photo: the width of an export's answer."""
CANDIDATES = 300
"""Boxes a view, before suppression."""
TILES_AT_ONCE = 8

Tensors = dict[str, tf.Tensor]


def whole_views(sizes: tf.Tensor, side: int, how: images.How) -> tf.Tensor:
    """float32 [N, 8]: the view of each photo (int32 [N, 2], height and width) that is fitted to a square whole."""

    def view(size: tf.Tensor) -> tf.Tensor:
        scale_y, scale_x, offset_y, offset_x = images.geometry(size[0], size[1], side, how)
        return tf.stack([scale_x, scale_y, offset_x, offset_y, -FAR, -FAR, FAR, FAR])

    return tf.map_fn(view, sizes, fn_output_signature=tf.TensorSpec([8], tf.float32))


def tile_views(tiling: Tiling, size: tf.Tensor) -> tf.Tensor:
    """float32 [n, 8]: the views of all tiles of a photo (int32 [2], height and width)."""
    places = tiling.places(size[0], size[1])
    scale = tf.fill([tf.shape(places)[0], 2], tf.constant(tiling.scale, tf.float32))
    return tf.concat([scale, -places[:, :2] * tiling.scale, places[:, 2:]], 1)


def candidates(
    outputs: Mapping[str, tf.Tensor], side: int, views: tf.Tensor, sizes: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """The best boxes of each view, in the photo.

    Args:
        outputs: of the head, [N, …].
        side: of the input in pixels.
        views: float32 [N, 8].
        sizes: int32 [N, 2], height and width of the photo of each view.

    Returns:
        float32 [N, K, 4] in pixels of the photo and inside it, float32 [N, K] scores, 0 for a box that another view
        answers for, and int32 [N, K] classes.
    """
    boxes, scores, classes = detector.read_maps(outputs, side, CANDIDATES)
    scale, offset = tf.tile(views[:, tf.newaxis, :2], [1, 1, 2]), tf.tile(views[:, tf.newaxis, 2:4], [1, 1, 2])
    boxes = (boxes - offset) / scale
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    own = tf.reduce_all((middle >= views[:, tf.newaxis, 4:6]) & (middle < views[:, tf.newaxis, 6:8]), -1)
    most = tf.cast(tf.gather(sizes, [1, 0, 1, 0], axis=1), tf.float32)[:, tf.newaxis]
    boxes = tf.clip_by_value(boxes, 0.0, most)
    # What lies on the padding beside a photo is no box of it.
    own &= geometry.area(boxes) > 0
    return boxes, tf.where(own, scores, 0.0), classes


def settle(boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor) -> Tensors:
    """One photo's candidates, of all its views, to its answer, padded with zeros.

    Args:
        boxes: float32 [n, 4] in pixels of the photo.
        scores: float32 [n].
        classes: int32 [n].

    Returns:
        `boxes` float32 [MOST, 4], `scores` float32 [MOST], best first, `classes` int32 [MOST], `count` int32 scalar,
        and `best_score`, float32 scalar: the highest score of all, however low.
    """
    kept = geometry.suppress(boxes, scores, classes, MOST, OVERLAP_LIMIT, LEAST_SCORE)
    missing = MOST - tf.size(kept)
    found = {"scores": tf.gather(scores, kept), "classes": tf.gather(classes, kept)}
    padded = {name: tf.ensure_shape(tf.pad(value, [[0, missing]]), [MOST]) for name, value in found.items()}
    where = tf.ensure_shape(tf.pad(tf.gather(boxes, kept), [[0, missing], [0, 0]]), [MOST, 4])
    return {"boxes": where, **padded, "count": tf.size(kept), "best_score": tf.reduce_max(scores)}


_SETTLED = {
    "boxes": tf.TensorSpec([MOST, 4], tf.float32),
    "scores": tf.TensorSpec([MOST], tf.float32),
    "classes": tf.TensorSpec([MOST], tf.int32),
    "count": tf.TensorSpec([], tf.int32),
    "best_score": tf.TensorSpec([], tf.float32),
}


def answer_whole(numeric: Callable[[Any], Any], squares: tf.Tensor, sizes: tf.Tensor, how: images.How) -> Tensors:
    """Photos that were fitted to squares whole, to their answers.

    Args:
        numeric: pixels float32 [N, S, S, 3] to the outputs of the head.
        squares: float32 [N, S, S, 3].
        sizes: int32 [N, 2], height and width of the photos.
        how: they were fitted.

    Returns:
        As `settle`, [N, …].
    """
    side = squares.shape[1]
    found = candidates(numeric(squares), side, whole_views(sizes, side, how), sizes)
    return tf.map_fn(lambda one: settle(*one), found, fn_output_signature=_SETTLED)


def answer_tiled(numeric: Callable[[Any], Any], photo: tf.Tensor, tiling: Tiling) -> Tensors:
    """One photo of any size, looked at in tiles, a few at a time, so that memory does not grow with the photo.

    Args:
        numeric: pixels float32 [N, S, S, 3] to the outputs of the head.
        photo: uint8 [H, W, 3].
        tiling: how it is cut.

    Returns:
        As `settle`.
    """
    size = tf.shape(photo)[:2]
    views = tile_views(tiling, size)
    count = tf.shape(views)[0]

    def look(first: tf.Tensor) -> tuple[tf.Tensor, ...]:
        places = first + tf.range(TILES_AT_ONCE)
        chosen = tf.gather(views, tf.minimum(places, count - 1))
        squares = tf.map_fn(
            lambda view: _tile(photo, size, view, tiling.side),
            chosen,
            fn_output_signature=tf.TensorSpec([tiling.side, tiling.side, 3], tf.float32),
        )
        boxes, scores, classes = candidates(
            numeric(squares), tiling.side, chosen, tf.tile(size[tf.newaxis], [TILES_AT_ONCE, 1])
        )
        return boxes, tf.where((places < count)[:, tf.newaxis], scores, 0.0), classes

    specs = (tf.TensorSpec([TILES_AT_ONCE, None, 4]), tf.TensorSpec([TILES_AT_ONCE, None]))
    found = tf.map_fn(
        look,
        tf.range(0, count, TILES_AT_ONCE),
        fn_output_signature=(*specs, tf.TensorSpec([TILES_AT_ONCE, None], tf.int32)),
        parallel_iterations=1,
    )
    boxes, scores, classes = found
    return settle(tf.reshape(boxes, [-1, 4]), tf.reshape(scores, [-1]), tf.reshape(classes, [-1]))


def answer_tiled_batch(
    numeric: Callable[[Any], Any], photos: tf.Tensor, tiling: Tiling, decode: Callable[[Any], Any]
) -> Tensors:
    """`answer_tiled` for a batch, one photo after the other; N may be 0.

    Args:
        numeric: pixels to the outputs of the head.
        photos: [N, …]: what `decode` takes to uint8 [H, W, 3].
        tiling: how they are cut.
        decode: such as `images.decode`.
    """
    return tf.map_fn(
        lambda one: answer_tiled(numeric, decode(one), tiling),
        photos,
        fn_output_signature=_SETTLED,
        parallel_iterations=1,
    )


def _tile(photo: tf.Tensor, size: tf.Tensor, view: tf.Tensor, side: int) -> tf.Tensor:
    """float32 [side, side, 3]: the tile of a view."""
    scale = view[0]
    left, top = -view[2] / scale, -view[3] / scale
    y, x, height, width = tf.unstack(tiles.region(left, top, scale, side, size))
    part = photo[y : y + height, x : x + width]
    return tiles.cut(part, tf.stack([y, x]), size, left, top, scale, side)

"""Box signatures: what the export of a detector takes and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.vision import box_answers, images
from keras_transfer.vision.box_answers import MOST
from keras_transfer.vision.tiles import Tiling

Tensors = dict[str, tf.Tensor]


def signatures(
    numeric: Callable[[Any], Any], names: Sequence[str], side: int, how: images.How, tiling: Tiling | None
) -> dict[str, Any]:
    """`serving_default` from encoded images, and `pixels`; either of any size, N may be 0.

    Args:
        numeric: pixels float32 [N, S, S, 3], 0-255, to the outputs of the head.
        names: of the classes.
        side: S.
        how: images are fitted to the square.
        tiling: how they are cut instead; None where they are fitted whole.

    Returns:
        Functions to `boxes` float32 [N, 500, 4], `labels` string [N, 500], `scores` float32 [N, 500], `count` int32 [N]
        and `best_score` float32 [N].
    """
    table = tf.constant([*names, ""])

    def named(found: Tensors) -> Tensors:
        real = tf.range(MOST)[tf.newaxis] < found["count"][:, tf.newaxis]
        classes = tf.where(real, found["classes"], len(names))
        kept = {name: value for name, value in found.items() if name != "classes"}
        return {**kept, "labels": tf.gather(table, classes)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def from_bytes(image_bytes: tf.Tensor) -> Tensors:
        if tiling is not None:
            return named(box_answers.answer_tiled_batch(numeric, image_bytes, tiling, images.decode))
        specs = (tf.TensorSpec([side, side, 3], tf.float32), tf.TensorSpec([2], tf.int32))
        squares, sizes = tf.map_fn(
            lambda data: images.load_with_size(data, side, how), image_bytes, fn_output_signature=specs
        )
        return named(box_answers.answer_whole(numeric, squares, sizes, how))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")], autograph=False)
    def from_pixels(pixels: tf.Tensor) -> Tensors:
        if tiling is not None:
            return named(box_answers.answer_tiled_batch(numeric, pixels, tiling, tf.identity))
        sizes = tf.tile(tf.shape(pixels)[tf.newaxis, 1:3], [tf.shape(pixels)[0], 1])
        return named(box_answers.answer_whole(numeric, images.resize_batch(pixels, side, how), sizes, how))

    return {"serving_default": from_bytes, "pixels": from_pixels}


def requests(side: int) -> Mapping[str, Mapping[str, np.ndarray]]:
    """One small request a signature."""
    grey = np.full((side, side, 3), 127, np.uint8)
    encoded = tf.io.encode_jpeg(grey).numpy()
    return {
        "serving_default": {"image_bytes": np.array([encoded], object)},
        "pixels": {"pixels": grey[None]},
    }

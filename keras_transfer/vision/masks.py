"""Masks: a class for every pixel, brought to the square with its image, and the answer taken back to the image's size.

A mask is grey, 8 bits, value = class index, 255 = to be ignored. Training, evaluation and export share `restore`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow as tf

from keras_transfer.vision import colours, images, warping
from keras_transfer.vision.augmentation import Augmentation

IGNORE = 255
"""The value of pixels that neither train nor count: unlabelled ones, and the bands beside a padded image."""


@dataclass(frozen=True)
class Answer:
    """What a model says about one image, at the size of that image."""

    mask: tf.Tensor
    """uint8 [H, W], class indices."""
    share: tf.Tensor
    """float32 [C]: the share of the image's pixels that were given each class; sums to 1."""
    mean_probability: tf.Tensor
    """float32 [C]: each class's probability, on average over the image. Unlike `share` it does not jump where two
    classes are nearly equal, so that two computations of one answer can be compared by it."""


def decode(data: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W] from the bytes of a PNG (string scalar), grey, 8 bits."""
    return tf.io.decode_png(data, channels=1)[:, :, 0]


def encode(mask: tf.Tensor) -> tf.Tensor:
    """String scalar, a PNG, from uint8 [H, W]."""
    return tf.io.encode_png(mask[:, :, tf.newaxis])


def fit(mask: tf.Tensor, size: int, how: images.How) -> tf.Tensor:
    """Brings a mask to the square as `images.resize` brings its image there, by the nearest pixel.

    Args:
        mask: uint8 [H, W], of the upright image's size.
        size: side of the square in pixels.
        how: `crop`, `pad` or `stretch`; see `images.geometry`.

    Returns:
        uint8 [size, size]; `IGNORE` beside the image.
    """
    sides = tf.shape(mask)
    scale_y, scale_x, offset_y, offset_x = images.geometry(sides[0], sides[1], size, how)
    rows, above = _looked_up(scale_y, offset_y, sides[0], size)
    columns, left = _looked_up(scale_x, offset_x, sides[1], size)
    square = tf.gather(tf.gather(mask, rows), columns, axis=1)
    inside = above[:, tf.newaxis] & left[tf.newaxis, :]
    return tf.ensure_shape(tf.where(inside, square, tf.constant(IGNORE, tf.uint8)), [size, size])


def augment(
    augmentation: Augmentation, image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """One movement for image and mask, and changes of colour for the image alone.

    What comes from outside the square is mirrored in the image, as in classification, and ignored in the mask.

    Args:
        augmentation: what to do; erasing and mixing are not done here.
        image: float32 [S, S, 3], 0-255.
        mask: uint8 [S, S].
        seed: int32 [2]; see `Augmentation.one`.
    """
    if augmentation.moves:
        matrix = augmentation.geometric_matrix(seed, tf.shape(image)[:2])
        image = colours.clip(warping.warp(image, matrix))
        mask = warping.warp(mask[:, :, tf.newaxis], matrix, "nearest", fill=float(IGNORE))[:, :, 0]
    return augmentation.recoloured(image, seed), mask


def followed(text: str) -> str:
    """The augmentation that masks can follow, as `Augmentation.parse` reads it.

    Args:
        text: what was asked for; `auto` is `light`. The preset `strong` goes without erasing and mixing.

    Raises:
        ValueError: for operations that were asked for by name and cannot be done.
    """
    found = Augmentation.parse("light" if text == "auto" else text)
    kept = replace(found, erase=0.0, mixup=0.0, cutmix=0.0)
    refused = [name for name in ("erase", "mixup", "cutmix") if name in text and getattr(found, name)]
    if refused:
        raise ValueError(
            f"data.augment: expected operations that a mask can follow. Received: {', '.join(refused)}, which mix or "
            "paint over images. Leave them out (the preset strong is used without them)."
        )
    return ("light" if text == "auto" else text) if kept == found else str(kept)


def restore(logits: tf.Tensor, height: tf.Tensor, width: tf.Tensor, how: images.How) -> Answer:
    """Takes the answer for a square back to the image: off the bands, bilinear to its size, the likeliest class.

    One class at a time, so that a large photo takes the memory of three maps, however many classes there are.

    Args:
        logits: float32 [S, S, C].
        height: height of the upright image in pixels, int32 scalar.
        width: width of the upright image in pixels, int32 scalar.
        how: how the image met the square, `pad` or `stretch`.

    Raises:
        ValueError: for `crop`, which leaves a part of the image without an answer.
    """
    if how == "crop":
        raise ValueError(
            "data.resize: expected pad or stretch for masks, since crop leaves the rim of an image without an answer. "
            f"Received: {how!r}."
        )
    size, classes = logits.shape[0], logits.shape[-1]
    scale_y, scale_x, offset_y, offset_x = images.geometry(height, width, size, how)
    top, bottom = _extent(offset_y, size)
    left, right = _extent(offset_x, size)
    inside = logits[top:bottom, left:right]
    probability = tf.reduce_mean(tf.nn.softmax(inside), axis=[0, 1])
    scale = tf.stack([1 / scale_y, 1 / scale_x])
    # Repeated at the rim, since the image may reach half a cell further, where the operation would answer 0.
    inside = tf.pad(inside, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    first = tf.cast(tf.stack([top, left]) - 1, tf.float32)
    translation = (first - tf.stack([offset_y, offset_x])) * scale
    enlarge = _enlarger(tf.stack([height, width]), scale, translation)
    by_class = tf.transpose(inside, [2, 0, 1])

    def better(number: tf.Tensor, best: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = enlarge(by_class[number])
        higher = found > best
        return number + 1, tf.maximum(found, best), tf.where(higher, tf.cast(number, tf.uint8), mask)

    start = enlarge(by_class[0])
    shapes = [tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])]
    _, _, mask = tf.while_loop(
        lambda number, best, mask: number < classes,
        better,
        [tf.constant(1), start, tf.zeros(tf.shape(start), tf.uint8)],
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    counts = tf.math.bincount(tf.cast(tf.reshape(mask, [-1]), tf.int32), minlength=classes, maxlength=classes)
    share = tf.cast(counts, tf.float32) / tf.cast(tf.maximum(height * width, 1), tf.float32)
    return Answer(mask, tf.ensure_shape(share, [classes]), probability)


def answers(logits: tf.Tensor, sides: tf.Tensor, how: images.How) -> dict[str, tf.Tensor]:
    """`restore` for a batch, which may be empty: what decoding gives, and a served model.

    Args:
        logits: float32 [N, S, S, C]; all but N static.
        sides: int32 [N, 2], height and width of each upright image in pixels.
        how: `pad` or `stretch`.

    Returns:
        `mask_png` string [N], `class_share` and `mean_probability` float32 [N, C]; see `Answer`.
    """
    by_class = tf.TensorSpec([logits.shape[-1]], tf.float32)
    specs = {"mask_png": tf.TensorSpec([], tf.string), "class_share": by_class, "mean_probability": by_class}

    def one(part: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        found = restore(part[0], part[1][0], part[1][1], how)
        return {
            "mask_png": encode(found.mask),
            "class_share": found.share,
            "mean_probability": found.mean_probability,
        }

    return tf.map_fn(one, (logits, sides), fn_output_signature=specs)


def _looked_up(scale: tf.Tensor, offset: tf.Tensor, side: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """For each pixel of a side of the square: the image's pixel under its middle, and whether there is one."""
    middles = (tf.range(size, dtype=tf.float32) + 0.5 - offset) / scale
    # The allowance is that of `images`, for rounding: bands of the image and of the mask end at the same pixel.
    allowance = 1e-3 / scale
    inside = (middles >= allowance) & (middles <= tf.cast(side, tf.float32) - allowance)
    return tf.clip_by_value(tf.cast(tf.floor(middles), tf.int32), 0, side - 1), inside


def _extent(offset: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The first pixel of the square's side that lies on the image, and the one after the last."""
    first = tf.cast(tf.math.ceil(tf.maximum(offset, 0.0) + 1e-3 - 0.5), tf.int32)
    return first, size - first


def _enlarger(sides: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from one map [h, w] to float32 of the sides [H, W]; antialiased where it shrinks."""

    def enlarge(plane: tf.Tensor) -> tf.Tensor:
        enlarged = tf.raw_ops.ScaleAndTranslate(
            images=plane[tf.newaxis, :, :, tf.newaxis],
            size=sides,
            scale=scale,
            translation=translation,
            kernel_type="triangle",
            antialias=True,
        )
        return enlarged[0, :, :, 0]

    return enlarge

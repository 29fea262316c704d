"""Tiles: a photo that is larger than the input, looked at in overlapping squares.

Each tile answers for a part of the photo of its own, which ends half way into what it shares with its neighbours. A box
belongs to the tile in whose part its middle lies: the neighbour that sees only a piece of the object is not heard. An
object no larger than the overlap is thus always reported from a tile that holds all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_transfer.vision.images import PADDING

FAR = 1e9
"""Beyond every photo: at the photo's border a tile's own part does not end."""


@dataclass(frozen=True)
class Tiling:
    """How photos are cut."""

    side: int
    """Of a tile after scaling, in pixels: what the backbone takes."""
    scale: float
    """Pixels of a tile for a pixel of the photo."""
    overlap: int
    """What neighbours share at least, in pixels of a tile."""

    @property
    def reach(self) -> float:
        """The side of a tile in pixels of the photo."""
        return self.side / self.scale

    def count(self, height: int, width: int) -> int:
        """How many tiles a photo of that size in pixels makes."""
        return len(self.places(tf.constant(height), tf.constant(width)))

    def places(self, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """The tiles of a photo, row by row.

        Args:
            height: int32 scalar, of the upright photo in pixels.
            width: int32 scalar.

        Returns:
            float32 [n, 6] in pixels of the photo: left and top edge of the tile, and x_min, y_min, x_max, y_max of the
            part that it answers for. A photo smaller than a tile lies in the middle of it.
        """
        top, own_top, own_bottom = self._along(height)
        left, own_left, own_right = self._along(width)
        rows, columns = tf.size(top), tf.size(left)

        def across(values: tf.Tensor) -> tf.Tensor:
            return tf.tile(values, [rows])

        def down(values: tf.Tensor) -> tf.Tensor:
            return tf.repeat(values, columns)

        parts = [across(left), down(top), across(own_left), down(own_top), across(own_right), down(own_bottom)]
        return tf.stack(parts, 1)

    def _along(self, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """float32 [n] each, along one side of a photo: starts of tiles, and starts and ends of their own parts."""
        length = tf.cast(length, tf.float32)
        step = (self.side - self.overlap) / self.scale
        # The allowance is for rounding: a photo of exactly n tiles needs no further one.
        count = tf.cast(tf.maximum(tf.math.ceil((length - self.reach) / step - 1e-3), 0.0), tf.int32) + 1
        room = length - self.reach
        stride = tf.math.divide_no_nan(room, tf.cast(count - 1, tf.float32))
        # Evenly spread; a photo shorter than a tile is centred.
        start = tf.where(count > 1, stride * tf.cast(tf.range(count), tf.float32), room / 2)
        between = start[1:] + (self.reach - stride) / 2
        return start, tf.concat([[-FAR], between], 0), tf.concat([between, [FAR]], 0)


def cut(
    photo: tf.Tensor, corner: tf.Tensor, size: tf.Tensor, left: tf.Tensor, top: tf.Tensor, scale: tf.Tensor, side: int
) -> tf.Tensor:
    """One tile, antialiased; what lies beyond the photo has the colour of padding.

    Args:
        photo: [h, w, 3], any number type, 0-255: the photo, or a region of it that holds all of the tile (`region`).
        corner: int32 [2], y and x of the region's first pixel in the photo; 0, 0 for all of it.
        size: int32 [2], height and width of the photo.
        left: float32 scalar, the tile's left edge in pixels of the photo; may be below 0.
        top: float32 scalar.
        scale: float32 scalar, pixels of the tile for one of the photo.
        side: of the tile in pixels.

    Returns:
        float32 [side, side, 3], 0-255.
    """
    origin = tf.stack([top, left])
    shift = (tf.cast(corner, tf.float32) - origin) * scale
    tile = tf.raw_ops.ScaleAndTranslate(
        images=photo[tf.newaxis],
        size=[side, side],
        scale=tf.stack([scale, scale]),
        translation=shift,
        kernel_type="triangle",
        antialias=True,
    )[0]
    middles = (tf.range(side, dtype=tf.float32) + 0.5) / scale
    sides = tf.cast(size, tf.float32)
    rows, columns = (
        (start + middles >= 0) & (start + middles <= end) for start, end in ((top, sides[0]), (left, sides[1]))
    )
    inside = rows[:, tf.newaxis, tf.newaxis] & columns[tf.newaxis, :, tf.newaxis]
    return tf.ensure_shape(tf.where(inside, tile, tf.constant(PADDING)), [side, side, 3])


def region(left: tf.Tensor, top: tf.Tensor, scale: tf.Tensor, side: int, size: tf.Tensor) -> tf.Tensor:
    """int32 [4]: y, x, height and width of the pixels of a photo (int32 [2] height, width) that a tile is made of."""
    margin = 2.0 / tf.minimum(scale, 1.0)  # what the antialiasing kernel sees beyond the edge, and rounding
    low = tf.stack([top, left]) - margin
    high = low + side / scale + 2 * margin
    # At least one pixel, for a tile that lies beyond the photo.
    first = tf.clip_by_value(tf.cast(tf.floor(low), tf.int32), 0, size - 1)
    last = tf.clip_by_value(tf.cast(tf.math.ceil(high), tf.int32), first + 1, size)
    return tf.concat([first, last - first], 0)

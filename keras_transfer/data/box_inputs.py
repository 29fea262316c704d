"""Box inputs: photos, or tiles of them, with their boxes, loaded and augmented in the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_transfer.data.decoded_photos import DecodedPhotos
from keras_transfer.data.records import Record
from keras_transfer.vision import box_answers, images, tiles, warping
from keras_transfer.vision import boxes as geometry
from keras_transfer.vision.augmentation import Augmentation
from keras_transfer.vision.detector import IGNORED, PADDED
from keras_transfer.vision.tiles import Tiling

KEPT_SHARE = 0.4
"""Of an object's area that must remain visible for it to be taught; where less remains nothing is punished."""
GREY = 115.0
"""Around a moved picture: near `images.PADDING`, as one number. Mirrored borders would show objects without boxes."""
_STREAM = 0x626F78
"""Folded into the seeds, so that the choice of the window draws other numbers than the augmentation."""

Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class BoxTable:
    """The boxes of all photos, in one array."""

    boxes: np.ndarray
    """float32 [n, 4] in pixels of the upright photos."""
    classes: np.ndarray
    """int32 [n]; `IGNORED` for crowds."""
    starts: np.ndarray
    """int64 [photos + 1]: photo i has the boxes from starts[i] to starts[i + 1]."""

    @classmethod
    def of(cls, records: Sequence[Record], names: Sequence[str]) -> BoxTable:
        """The table of some records.

        Raises:
            ValueError: for a class that is not among the names.
        """
        places = {name: number for number, name in enumerate(names)}
        classes: list[int] = []
        for record in records:
            crowd = record.fields.get("crowd") or (False,) * len(record.fields["labels"])
            for label, is_crowd in zip(record.fields["labels"], crowd, strict=True):
                if is_crowd:
                    classes.append(IGNORED)
                    continue
                if label not in places:
                    raise ValueError(
                        f"{record.where}: class {label!r} is in no training example. Expected one of: "
                        f"{', '.join(list(names)[:20])}. Add training examples of it, or correct the class."
                    )
                classes.append(places[label])
        counts = [len(record.fields["boxes"]) for record in records]
        boxes = [box for record in records for box in record.fields["boxes"]]
        return cls(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(classes, np.int32),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def most(self) -> int:
        """The most boxes of a photo, at least 1."""
        return max(1, int(np.diff(self.starts).max(initial=0)))

    def tensors(self) -> _Boxes:
        """For reading in the graph."""
        return _Boxes(tf.constant(self.boxes), tf.constant(self.classes), tf.constant(self.starts))


@dataclass(frozen=True)
class _Boxes:
    """A `BoxTable` as tensors."""

    boxes: tf.Tensor
    classes: tf.Tensor
    starts: tf.Tensor

    def of(self, photo: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 [n, 4] and int32 [n]: the boxes of one photo."""
        start, end = self.starts[photo], self.starts[photo + 1]
        return self.boxes[start:end], self.classes[start:end]


class WholePhotos:
    """Photos fitted to the square whole.

    Args:
        records: with `image`, the path of the file.
        table: their boxes.
        side: of the square in pixels.
        how: they are fitted.
        augmentation: of the training examples.
        scale_jitter: the largest change of scale as a share, either way.
    """

    def __init__(
        self,
        records: Sequence[Record],
        table: BoxTable,
        side: int,
        how: images.How,
        augmentation: Augmentation,
        scale_jitter: float,
    ):
        self._paths = tf.constant([record.fields["image"] for record in records], tf.string)
        self._boxes, self.most = table.tensors(), table.most()
        self._side, self._how = side, how
        self._augmentation, self._jitter = augmentation, scale_jitter

    def load(self, index: tf.Tensor) -> tuple[Tensors, Tensors]:
        """`pixels` float32 [S, S, 3]; `boxes` float32 [M, 4] in pixels of the square, `classes` int32 [M]."""
        pixels, size = images.load_with_size(tf.io.read_file(self._paths[index]), self._side, self._how)
        boxes, classes = self._boxes.of(index)
        view = box_answers.whole_views(size[tf.newaxis], self._side, self._how)[0]
        return {"pixels": pixels}, visible(_viewed(boxes, view[:2], view[2:4]), classes, self._side, self.most)

    def augment(self, inputs: Tensors, targets: Tensors, seed: tf.Tensor) -> tuple[Tensors, Tensors]:
        """Another scale and place of the picture, then the recipe's movements and colours."""
        side = float(self._side)
        draw = tf.random.stateless_uniform([3], tf.random.experimental.stateless_fold_in(seed, _STREAM), -1.0, 1.0)
        scale = tf.exp(draw[0] * math.log1p(self._jitter))
        room = tf.abs(1 - scale) * side / 2
        matrix = warping.compose(
            warping.about(side / 2, side / 2, warping.scaling(scale, scale)),
            warping.translation(draw[1] * room, draw[2] * room),
            self._augmentation.geometric_matrix(seed, tf.constant([self._side, self._side])),
        )
        pixels = warping.warp(inputs["pixels"], matrix, fill=GREY)
        moved = geometry.move(targets["boxes"], matrix)
        found = visible(moved, targets["classes"], self._side, self.most)
        return {"pixels": self._augmentation.recoloured(pixels, seed)}, found


class Tiles:
    """Tiles of photos; each training epoch takes them elsewhere and at another scale.

    Args:
        records: with `image`, the path of the file.
        sizes: height and width of each upright photo in pixels.
        table: their boxes.
        tiling: how they are cut.
        augmentation: of the training examples.
        scale_jitter: the largest change of scale as a share, either way.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sizes: Sequence[tuple[int, int]],
        table: BoxTable,
        tiling: Tiling,
        augmentation: Augmentation,
        scale_jitter: float,
    ):
        self._tiling, self._augmentation, self._jitter = tiling, augmentation, scale_jitter
        self._photos, self._boxes = DecodedPhotos(records, sizes), table.tensors()
        found = [box_answers.tile_views(tiling, tf.constant(size, tf.int32)).numpy() for size in sizes]
        self.photo = np.repeat(np.arange(len(sizes)), [len(views) for views in found])
        """int64 [tiles]: the number of each tile's photo."""
        self.views = np.concatenate([np.zeros((0, 8), np.float32), *found])
        """float32 [tiles, 8]."""
        self.most = max(1, self._crowded(table))
        """M."""
        self._photo_of, self._view_of = tf.constant(self.photo), tf.constant(self.views)
        self._sizes = tf.constant(np.array(sizes, np.int32).reshape(-1, 2))

    def load(self, index: tf.Tensor) -> tuple[Tensors, Tensors]:
        """`pixels` float32 [S, S, 3]; `boxes` float32 [M, 4] in pixels of the tile, `classes` int32 [M]; `tile` []."""
        view = self._view_of[index]
        pixels, boxes = self._cut(self._photo_of[index], -view[2] / view[0], -view[3] / view[1], view[0])
        return {"pixels": pixels}, {**boxes, "tile": index}

    def augment(self, inputs: Tensors, targets: Tensors, seed: tf.Tensor) -> tuple[Tensors, Tensors]:
        """The tile taken anew elsewhere, then the recipe's movements and colours."""
        index, tiling = targets["tile"], self._tiling
        photo, view = self._photo_of[index], self._view_of[index]
        draw = tf.random.stateless_uniform([3], tf.random.experimental.stateless_fold_in(seed, _STREAM), -1.0, 1.0)
        scale = tiling.scale * tf.exp(draw[0] * math.log1p(self._jitter))
        step = (tiling.side - tiling.overlap) / tiling.scale
        middle = (tiling.side / 2 - view[2:4]) / view[0] + draw[1:] * step / 2
        start, room = (
            middle - tiling.side / scale / 2,
            tf.cast(self._sizes[photo][::-1], tf.float32) - tiling.side / scale,
        )
        start = tf.clip_by_value(start, tf.minimum(room, 0.0), tf.maximum(room, 0.0))
        pixels, found = self._cut(photo, start[0], start[1], scale)
        if self._augmentation.moves:
            matrix = self._augmentation.geometric_matrix(seed, tf.constant([tiling.side, tiling.side]))
            pixels = warping.warp(pixels, matrix, fill=GREY)
            found = visible(geometry.move(found["boxes"], matrix), found["classes"], tiling.side, self.most)
        return {"pixels": self._augmentation.recoloured(pixels, seed)}, {**found, "tile": index}

    def _cut(self, photo: tf.Tensor, left: tf.Tensor, top: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        """A tile with its boxes."""
        side, size = self._tiling.side, self._sizes[photo]
        part = tiles.region(left, top, scale, side, size)

        def read(number: np.ndarray, where: np.ndarray) -> np.ndarray:
            return self._photos.region(int(number), *(int(value) for value in where))

        # Not stateful: an augmented tile is cut elsewhere, and the unused first cut is then left out of the graph.
        pixels = tf.numpy_function(read, [photo, part], tf.uint8, stateful=False)
        pixels = tf.ensure_shape(pixels, [None, None, 3])
        boxes, classes = self._boxes.of(photo)
        scales = tf.stack([scale, scale])
        moved = _viewed(boxes, scales, -tf.stack([left, top]) * scale)
        return tiles.cut(pixels, part[:2], size, left, top, scale, side), visible(moved, classes, side, self.most)

    def _crowded(self, table: BoxTable) -> int:
        """The most boxes that any tile can show, wherever it is taken."""
        tiling = self._tiling
        reach = tiling.reach * (1 + self._jitter) / 2 + (tiling.side - tiling.overlap) / tiling.scale / 2
        most = 0
        for number in range(len(table.starts) - 1):
            boxes = table.boxes[table.starts[number] : table.starts[number + 1]]
            if not len(boxes):
                continue
            views = self.views[self.photo == number]
            middles = (tiling.side / 2 - views[:, 2:4]) / views[:, :1]
            low, high = middles - reach, middles + reach
            shown = (boxes[None, :, :2] < high[:, None]) & (boxes[None, :, 2:] > low[:, None])
            most = max(most, int(shown.all(-1).sum(1).max()))
        return most


def visible(boxes: tf.Tensor, classes: tf.Tensor, side: int, most: int) -> Tensors:
    """The targets of a square from the boxes around it.

    Args:
        boxes: float32 [n, 4] in pixels of the square; may lie beyond it.
        classes: int32 [n]; `PADDED` where there is none.
        side: of the square in pixels.
        most: M.

    Returns:
        `boxes` float32 [M, 4], cut at the borders, and `classes` int32 [M]: `PADDED` where there is no box, `IGNORED`
        where less than `KEPT_SHARE` of the object remains. Of more than M the most visible ones are kept.
    """
    inside = geometry.clip(boxes, tf.constant(side), tf.constant(side))
    share = tf.math.divide_no_nan(geometry.area(inside), geometry.area(boxes))
    share = tf.where(classes == PADDED, 0.0, share)
    classes = tf.where(share >= KEPT_SHARE, classes, IGNORED)
    best = tf.math.top_k(share, tf.minimum(tf.size(share), most)).indices
    shown = tf.boolean_mask(best, tf.gather(share, best) > 0)
    missing = most - tf.size(shown)
    return {
        "boxes": tf.ensure_shape(tf.pad(tf.gather(inside, shown), [[0, missing], [0, 0]]), [most, 4]),
        "classes": tf.ensure_shape(tf.pad(tf.gather(classes, shown), [[0, missing]], constant_values=PADDED), [most]),
    }


def _viewed(boxes: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Boxes of a photo in the square: scale and offset float32 [2] along x and y."""
    return boxes * tf.tile(scale, [2]) + tf.tile(offset, [2])

"""The `trees` sample: square crops of aerial photos, with and without a tree, as class folders.

Each positive is a square around an annotated tree, with some context; each negative is a square of the same size as
one of the positives that touches no annotated tree, so that neither size nor position tells the class. The largest
photo is cut into five horizontal bands, so that no pixel is in two splits; the second photo, taken elsewhere, is a
test of its own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_transfer.samples.voc import Boxes, read_boxes

TRAIN_PHOTO = "2019_YELL_2_528000_4978000_image_crop2"
SHIFTED_PHOTO = "2019_YELL_2_541000_4977000_image_crop"

# A square that ends at the box shows a tree's texture only; with context its outline and shadow are seen.
CONTEXT = 1.4
BANDS = ("train", "validation", "train", "test", "train")
SEED = 0


@dataclass(frozen=True)
class Square:
    """A square region of a photo, in pixels."""

    x: int
    y: int
    side: int


def write(files: Path, folder: Path) -> None:
    """Writes `SPLIT/tree/*.png` and `SPLIT/no_tree/*.png` at the photos' own resolution.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    photos = files / "deepforest" / "data"
    for photo, splits in ((TRAIN_PHOTO, BANDS), (SHIFTED_PHOTO, ("test_shifted",))):
        with Image.open(photos / f"{photo}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        boxes, _ = read_boxes(photos / f"{photo}.xml")
        edges = np.linspace(0, len(pixels), len(splits) + 1).round().astype(int)
        for number, split in enumerate(splits):
            trees, others = choose_squares(
                boxes, pixels.shape[1], int(edges[number]), int(edges[number + 1]), zlib.crc32(photo.encode()) + number
            )
            for label, squares in (("tree", trees), ("no_tree", others)):
                _write_crops(folder / split / label, photo, pixels, squares)


def choose_squares(boxes: Boxes, width: int, top: int, bottom: int, seed: int) -> tuple[list[Square], list[Square]]:
    """The squares with a tree and as many without in one horizontal band of a photo.

    A square that is not wholly inside the band is dropped, so that trees stay in the middle of their crop and no two
    bands share a pixel. The sides of the negatives are those of the positives, each at a place drawn from all that
    touch no tree; where there is none for that side, another side is drawn.

    Args:
        boxes: float [n, 4], the trees of the whole photo as x_min, y_min, x_max, y_max in pixels.
        width: of the photo, in pixels.
        top: first row of the band.
        bottom: row after its last.
        seed: of the negatives.

    Returns:
        The squares around trees, in the order of the boxes, and as many squares that touch none.
    """
    trees = []
    for x_min, y_min, x_max, y_max in boxes:
        side = round(CONTEXT * max(x_max - x_min, y_max - y_min))
        square = Square(round((x_min + x_max - side) / 2), round((y_min + y_max - side) / 2), side)
        if square.x >= 0 and square.x + side <= width and square.y >= top and square.y + side <= bottom:
            trees.append(square)
    generator = np.random.default_rng((SEED, seed))
    occupied = _occupied(boxes, width, bottom)
    sides = [square.side for square in trees]
    queue = list(generator.permutation(sides)) if sides else []
    others: list[Square] = []
    while len(others) < len(trees) and sides:
        side = int(queue.pop()) if queue else int(generator.choice(sides))
        ys, xs = np.nonzero(_free(occupied, top, side))
        if len(ys):
            place = generator.integers(len(ys))
            others.append(Square(int(xs[place]), int(ys[place]) + top, side))
        else:
            sides = [s for s in sides if s != side]
    return trees, others


def _occupied(boxes: Boxes, width: int, height: int) -> np.ndarray:
    """int64 [height + 1, width + 1]: how many pixels above and left of each corner belong to a tree."""
    trees = np.zeros((height, width), bool)
    for x_min, y_min, x_max, y_max in boxes:
        trees[int(y_min) : int(np.ceil(y_max)), int(x_min) : int(np.ceil(x_max))] = True
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = trees.cumsum(0).cumsum(1)
    return sums


def _free(sums: np.ndarray, top: int, side: int) -> np.ndarray:
    """Bool [rows, columns]: whether the square with this corner (rows counted from `top`) touches no tree."""
    band = sums[top:]
    return (band[side:, side:] - band[:-side, side:] - band[side:, :-side] + band[:-side, :-side]) == 0


def _write_crops(folder: Path, photo: str, pixels: np.ndarray, squares: list[Square]) -> None:
    """One PNG a square, named after its place in the photo."""
    folder.mkdir(parents=True, exist_ok=True)
    for s in squares:
        name = f"{photo}_x{s.x:04d}_y{s.y:04d}_s{s.side:03d}.png"
        Image.fromarray(pixels[s.y : s.y + s.side, s.x : s.x + s.side]).save(folder / name)

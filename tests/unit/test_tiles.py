"""Tiles: how a large photo is looked at in squares."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.vision import images, tiles
from keras_transfer.vision.tiles import Tiling

TILING = Tiling(64, 1.0, 16)
PHOTOS = [(64, 64), (200, 130), (65, 640), (30, 20), (30, 300), (1249, 1035)]


def places(tiling: Tiling, size: tuple[int, int]) -> np.ndarray:
    return tiling.places(tf.constant(size[0]), tf.constant(size[1])).numpy()


@pytest.mark.parametrize("size", PHOTOS)
@pytest.mark.parametrize("tiling", [TILING, Tiling(64, 2.0, 20), Tiling(96, 0.5, 48)])
def test_every_point_of_a_photo_belongs_to_one_tile_that_sees_it(tiling: Tiling, size: tuple[int, int]):
    found = places(tiling, size)
    random = np.random.default_rng(0)
    x, y = random.uniform(0, size[1], 300), random.uniform(0, size[0], 300)
    own = (
        (x[:, None] >= found[:, 2])
        & (y[:, None] >= found[:, 3])
        & (x[:, None] < found[:, 4])
        & (y[:, None] < found[:, 5])
    )
    assert (own.sum(1) == 1).all()
    corner = found[own.argmax(1), :2]
    assert (x >= corner[:, 0]).all() and (x <= corner[:, 0] + tiling.reach + 1e-2).all()
    assert (y >= corner[:, 1]).all() and (y <= corner[:, 1] + tiling.reach + 1e-2).all()


@pytest.mark.parametrize("size", PHOTOS)
def test_an_object_no_larger_than_the_overlap_is_whole_in_the_tile_that_answers_for_it(size: tuple[int, int]):
    found, half = places(TILING, size), TILING.overlap / TILING.scale / 2
    random = np.random.default_rng(1)
    for _ in range(200):
        x, y = random.uniform(half, max(size[1] - half, half)), random.uniform(half, max(size[0] - half, half))
        own = (x >= found[:, 2]) & (y >= found[:, 3]) & (x < found[:, 4]) & (y < found[:, 5])
        left, top = found[own][0, :2]
        assert x - half >= left - 1e-3 and x + half <= left + TILING.reach + 1e-3
        assert y - half >= top - 1e-3 and y + half <= top + TILING.reach + 1e-3


def test_tiles_lie_inside_the_photo_and_a_small_photo_in_the_middle_of_its_one_tile():
    found = places(TILING, (200, 130))
    assert found[:, :2].min() == 0 and found[:, 0].max() == 130 - 64 and found[:, 1].max() == 200 - 64
    assert places(TILING, (30, 20))[:, :2].tolist() == [[-22, -17]]
    assert len(places(TILING, (64, 64))) == 1 and len(places(TILING, (65, 64))) == 2


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def cut(pixels: np.ndarray, left: float, top: float, scale: float, side: int = 32, whole: bool = False) -> np.ndarray:
    size = tf.constant(pixels.shape[:2])
    left, top, scale = (tf.constant(value, tf.float32) for value in (left, top, scale))
    y, x, height, width = tiles.region(left, top, scale, side, size).numpy()
    if whole:
        y, x, height, width = 0, 0, *pixels.shape[:2]
    part = tf.constant(pixels[y : y + height, x : x + width])
    return tiles.cut(part, tf.constant([y, x]), size, left, top, scale, side).numpy()


def test_a_tile_at_scale_one_is_the_pixels_themselves():
    pixels = photo(90, 120)
    assert cut(pixels, 17, 23, 1.0) == pytest.approx(pixels[23:55, 17:49].astype(np.float32), abs=1e-3)


@pytest.mark.parametrize("left, top, scale", [(3.3, 7.9, 1.0), (60.2, 40.7, 2.0), (10.0, 0.0, 0.4), (-9.0, -4.0, 0.7)])
def test_a_region_gives_the_tile_that_the_whole_photo_gives(left: float, top: float, scale: float):
    pixels = photo(100, 130)
    assert cut(pixels, left, top, scale) == pytest.approx(cut(pixels, left, top, scale, whole=True), abs=0.02)


def test_beyond_the_photo_lies_the_colour_of_padding():
    tile = cut(photo(20, 24), -4, -6, 1.0)
    assert tile[:6].reshape(-1, 3) == pytest.approx(np.tile(images.PADDING, (6 * 32, 1)))
    assert tile[26:].reshape(-1, 3) == pytest.approx(np.tile(images.PADDING, (6 * 32, 1)))
    assert tile[6:26, 4:28] == pytest.approx(photo(20, 24).astype(np.float32), abs=1e-3)


def test_an_enlarged_tile_shows_an_object_where_its_box_says():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[40:50, 60:70] = 255
    tile = cut(pixels, 50, 30, 2.0, side=64)
    rows, columns = np.nonzero(tile[..., 0] > 127)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 20, 40, 40)

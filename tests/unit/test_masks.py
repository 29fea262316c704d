"""Masks: they meet the square exactly as their images do, move with them, and come back at the image's size."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.vision import images, masks
from keras_transfer.vision.augmentation import Augmentation

# Height and width: odd, long, smaller and larger than the square.
SIZES = [(37, 91), (91, 37), (101, 64), (64, 64), (128, 128), (17, 300), (5, 3), (63, 65), (1, 400)]
SIDE = 64
IGNORE = masks.IGNORE


def blocks(height: int, width: int, cell: int = 8) -> np.ndarray:
    """A mask of three classes in blocks, without any symmetry."""
    down, across = np.mgrid[0:height, 0:width] // cell
    return ((2 * down + across + down * across) % 3).astype(np.uint8)


def picture_of(mask: np.ndarray) -> np.ndarray:
    """Float pixels in which each class has a colour of its own."""
    return np.array([(0, 0, 255), (0, 255, 0), (255, 0, 0)], np.float32)[mask]


def naive_fit(mask: np.ndarray, size: int, how: str) -> np.ndarray:
    """The class under the middle of each pixel of the square, one by one."""
    height, width = mask.shape
    scale_y, scale_x, offset_y, offset_x = (float(v) for v in images.geometry(height, width, size, how))
    square = np.full((size, size), IGNORE, np.uint8)
    for row in range(size):
        for column in range(size):
            y, x = (row + 0.5 - offset_y) / scale_y, (column + 0.5 - offset_x) / scale_x
            # As in `images`: a middle on the very rim belongs to the band beside the image.
            if 1e-3 / scale_y <= y <= height - 1e-3 / scale_y and 1e-3 / scale_x <= x <= width - 1e-3 / scale_x:
                square[row, column] = mask[int(y), int(x)]
    return square


@pytest.mark.parametrize("how", ["pad", "stretch"])
@pytest.mark.parametrize("size", SIZES)
def test_fit_takes_the_class_under_each_middle(size, how):
    # Sides of primes, so that no middle falls between two pixels, where rounding decides.
    mask = blocks(*size, cell=3)
    found = masks.fit(tf.constant(mask), 61, how).numpy()
    np.testing.assert_array_equal(found, naive_fit(mask, 61, how))


@pytest.mark.parametrize("how", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(37, 91), (91, 37), (101, 64), (128, 128), (200, 333)])
def test_image_and_mask_meet_the_square_alike(size, how):
    mask = blocks(*size, cell=24)
    image = images.resize(tf.constant(picture_of(mask)), SIDE, how).numpy()
    found = masks.fit(tf.constant(mask), SIDE, how).numpy()
    # Away from the edges of blocks the pixel has the very colour of its class.
    pure = (image.max(-1) > 254) & (found != IGNORE)
    assert pure.sum() > 0.4 * (found != IGNORE).sum()
    np.testing.assert_array_equal(2 - image.argmax(-1)[pure], found[pure])
    # On an edge the class is that of the larger part, but for rounding: no systematic shift.
    inside = found != IGNORE
    assert (2 - image.argmax(-1)[inside] == found[inside]).mean() > 0.97
    bands = (image == np.array(images.PADDING, np.float32)).all(-1)
    np.testing.assert_array_equal(found == IGNORE, bands)


def test_fit_keeps_ignored_pixels():
    mask = blocks(40, 30)
    mask[10:20, 5:25] = IGNORE
    found = masks.fit(tf.constant(mask), 40, "pad").numpy()
    np.testing.assert_array_equal(found[:, 5:35], mask)
    assert (found[:, :5] == IGNORE).all()


@pytest.mark.parametrize("how", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(37, 91), (91, 37), (101, 64), (64, 64), (128, 128), (17, 300), (333, 200)])
def test_restore_undoes_the_geometry_to_the_pixel(size, how):
    """A boundary that is a line in the image comes back in the very row and column where it was."""
    height, width = size
    scale_y, scale_x, offset_y, offset_x = (float(v) for v in images.geometry(height, width, SIDE, how))
    middles = np.arange(SIDE) + 0.5
    for axis, scale, offset, side in ((0, scale_y, offset_y, height), (1, scale_x, offset_x, width)):
        cut = side // 2 + 0.25
        ramp = (middles - offset) / scale - cut
        plane = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None, :], (SIDE, SIDE))
        logits = np.stack([np.zeros_like(plane), plane, np.full_like(plane, -1e6)], -1).astype(np.float32)
        answer = masks.restore(tf.constant(logits), tf.constant(height), tf.constant(width), how)
        expected = np.zeros(size, np.uint8)
        place = np.s_[side // 2 :] if axis == 0 else np.s_[:, side // 2 :]
        expected[place] = 1
        np.testing.assert_array_equal(answer.mask.numpy(), expected)


@pytest.mark.parametrize("how", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(37, 91), (64, 64), (30, 31), (200, 333)])
def test_what_is_certain_in_the_square_comes_back_as_it_was(size, how):
    mask = blocks(*size, cell=max(size) // 3)
    square = masks.fit(tf.constant(mask), 128, how).numpy()
    logits = 20 * (square[..., None] == np.arange(3)).astype(np.float32)
    answer = masks.restore(tf.constant(logits), tf.constant(size[0]), tf.constant(size[1]), how)
    assert answer.mask.dtype == tf.uint8 and answer.mask.shape == size
    assert (answer.mask.numpy() == mask).mean() > 0.97
    counts = np.bincount(answer.mask.numpy().ravel(), minlength=3)
    np.testing.assert_allclose(answer.share, counts / counts.sum(), atol=1e-6)
    np.testing.assert_allclose(answer.mean_probability, counts / counts.sum(), atol=0.02)


def test_bands_say_nothing_about_the_image():
    """Whatever the network makes of the bands beside a padded image, its answer is the same."""
    logits = np.random.default_rng(0).normal(size=(SIDE, SIDE, 4)).astype(np.float32)
    other = logits.copy()
    inside = masks.fit(tf.zeros([20, 57], tf.uint8), SIDE, "pad").numpy() != IGNORE
    other[~inside] = 1e4
    for one, two in zip(
        *(
            (answer.mask, answer.share, answer.mean_probability)
            for answer in (
                masks.restore(tf.constant(part), tf.constant(20), tf.constant(57), "pad") for part in (logits, other)
            )
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_crop_is_refused():
    with pytest.raises(ValueError, match="pad or stretch.*crop"):
        masks.restore(tf.zeros([8, 8, 2]), tf.constant(9), tf.constant(5), "crop")


def test_a_batch_of_several_sizes_and_an_empty_one():
    logits = np.random.default_rng(0).normal(size=(3, 16, 16, 5)).astype(np.float32)
    sides = np.array([(9, 31), (40, 16), (1, 1)], np.int32)
    run = tf.function(lambda logits, sides: masks.answers(logits, sides, "pad"))
    found = run(tf.constant(logits), tf.constant(sides))
    for number, (height, width) in enumerate(sides):
        alone = masks.restore(tf.constant(logits[number]), tf.constant(height), tf.constant(width), "pad")
        png = masks.decode(found["mask_png"][number])
        assert png.shape == (height, width)
        np.testing.assert_array_equal(png, alone.mask)
        np.testing.assert_allclose(found["class_share"][number], alone.share, atol=1e-6)
    np.testing.assert_allclose(np.sum(found["mean_probability"], 1), 1, atol=1e-5)
    empty = run(tf.constant(logits[:0]), tf.constant(sides[:0]))
    assert {name: value.shape.as_list() for name, value in empty.items()} == {
        "mask_png": [0],
        "class_share": [0, 5],
        "mean_probability": [0, 5],
    }


@pytest.mark.parametrize("text", ["flip", "flip_vertical", "crop:0.5", "rotate:40", "translate:0.3", "strong"])
def test_a_mask_moves_with_its_image(text):
    mask = blocks(SIDE, SIDE, cell=16)
    augmentation = Augmentation.parse(text if text != "strong" else "crop:0.4,rotate:15,translate:0.1,flip")
    moved = 0
    for number in range(6):
        seed = tf.constant([number, 3], tf.int32)
        image, found = masks.augment(augmentation, tf.constant(picture_of(mask)), tf.constant(mask), seed)
        image, found = image.numpy(), found.numpy()
        pure = (image.max(-1) > 250) & (found != IGNORE)
        assert pure.sum() > 0.25 * SIDE**2
        np.testing.assert_array_equal(2 - image.argmax(-1)[pure], found[pure])
        moved += not np.array_equal(found, mask)
        again = masks.augment(augmentation, tf.constant(picture_of(mask)), tf.constant(mask), seed)
        np.testing.assert_array_equal(again[1], found)
    assert moved


def test_what_comes_from_outside_is_ignored():
    augmentation = Augmentation.parse("translate:0.5")
    mask = tf.ones([SIDE, SIDE], tf.uint8)
    shares = []
    for number in range(8):
        seed = tf.constant([number, 1], tf.int32)
        found = masks.augment(augmentation, tf.zeros([SIDE, SIDE, 3]), mask, seed)[1].numpy()
        assert set(np.unique(found)) <= {1, IGNORE}
        matrix = augmentation.geometric_matrix(seed, tf.constant([SIDE, SIDE])).numpy()
        kept = (SIDE - abs(matrix[0, 2])) * (SIDE - abs(matrix[1, 2])) / SIDE**2
        shares.append((found == 1).mean() - kept)
    assert np.abs(shares).max() < 0.05


def test_colours_leave_the_mask_alone():
    mask = blocks(SIDE, SIDE)
    image = tf.constant(picture_of(mask) * 0.5 + 60)
    changed, found = masks.augment(Augmentation.parse("color:0.5"), image, tf.constant(mask), tf.constant([1, 2]))
    assert np.abs(changed - image).max() > 5
    np.testing.assert_array_equal(found, mask)

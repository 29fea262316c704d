"""Augmentation: the seed decides alone, values and shapes hold, and each operation does what it says."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_transfer.vision import colours, warping
from keras_transfer.vision.augmentation import _DEFAULTS, _OPERATIONS, PRESETS, Augmentation

SIZE = 40


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    pixels = np.stack([rows * 6, columns * 5, 240 - rows * 2 - columns * 2], -1)
    pixels[5:12, 20:34] = (250, 30, 10)
    return (pixels + np.random.default_rng(0).integers(-9, 10, pixels.shape)).clip(0, 255).astype(np.float32)


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 7], tf.int32)


def augment(text: str, image: np.ndarray, number: int) -> np.ndarray:
    return Augmentation.parse(text).one(tf.constant(image), seed(number)).numpy()


CHANGING = [*(f"{name}:{strength}" for name, strength in _DEFAULTS.items() if "mix" not in name), "medium", "strong"]


@pytest.mark.parametrize("text", CHANGING)
def test_same_seed_same_image_and_other_seeds_differ(text, image):
    results = [augment(text, image, number) for number in range(12)]
    again = [augment(text, image, number) for number in range(12)]
    np.testing.assert_array_equal(results, again)
    assert len({result.tobytes() for result in results}) > 1
    for result in results:
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert result.min() >= 0
        assert result.max() <= 255


@pytest.mark.parametrize("text", ["light", "strong"])
def test_traced_in_a_dataset_whatever_the_order(text, image):
    augmentation = Augmentation.parse(text)
    dataset = tf.data.Dataset.range(8).map(
        lambda number: augmentation.one(tf.constant(image), tf.stack([tf.cast(number, tf.int32), 7])),
        num_parallel_calls=4,
        deterministic=True,
    )
    assert dataset.element_spec == tf.TensorSpec([SIZE, SIZE, 3], tf.float32)
    for number, result in enumerate(dataset):
        np.testing.assert_allclose(result, augment(text, image, number), atol=2e-2)


def test_unknown_size_when_traced(image):
    strong = Augmentation.parse("strong")
    traced = tf.function(strong.one, input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([2], tf.int32)])
    np.testing.assert_allclose(traced(image[:30], seed(3)), augment("strong", image[:30], 3), atol=2e-2)


def test_none_is_the_identity(image):
    tensor = tf.constant(image)
    none = Augmentation.parse("none")
    assert none.one(tensor, seed(1)) is tensor
    assert not none.mixes
    assert not none.moves
    assert none.batch(tensor, tensor, tensor) == (tensor, tensor)
    np.testing.assert_array_equal(none.geometric_matrix(seed(1), [SIZE, SIZE]), np.eye(3))


def test_flips_flip(image):
    np.testing.assert_array_equal(augment("flip:1", image, 1), image[:, ::-1])
    np.testing.assert_array_equal(augment("flip_vertical:1", image, 1), image[::-1])
    kinds = {augment("flip", image, number).tobytes() for number in range(20)}
    assert kinds == {image.tobytes(), np.ascontiguousarray(image[:, ::-1]).tobytes()}
    both = {augment("flip,flip_vertical", image, number).tobytes() for number in range(40)}
    assert len(both) == 4


def test_vertical_flips_only_when_asked():
    assert all(Augmentation.parse(preset).flip_vertical == 0 for preset in PRESETS)


@pytest.mark.parametrize(
    "text", ["flip:1", "flip:1,flip_vertical:1", "crop:0.6", "rotate:40", "translate:0.3", "strong"]
)
def test_points_follow_the_matrix(text):
    """A bright dot is found again where the matrix sends it."""
    augmentation = dataclasses.replace(Augmentation.parse(text), color=0.0, erase=0.0)
    height, width = 60, 80
    found = 0
    for number in range(12):
        x, y = 33.5, 24.5
        dot = np.zeros((height, width, 3), np.float32)
        dot[23:26, 32:35] = 100
        matrix = augmentation.geometric_matrix(seed(number), [height, width]).numpy()
        moved_x, moved_y, one = matrix @ (x, y, 1)
        assert one == 1
        if augmentation._resamples:
            moved = warping.warp(tf.constant(dot), tf.constant(matrix), fill=0.0).numpy()[..., 0]
        else:
            moved = augmentation.one(tf.constant(dot), seed(number)).numpy()[..., 0]
        if not (6 < moved_x < width - 6 and 6 < moved_y < height - 6):
            continue
        found += 1
        rows, columns = np.mgrid[0:height, 0:width] + 0.5
        assert (moved * columns).sum() / moved.sum() == pytest.approx(moved_x, abs=0.15)
        assert (moved * rows).sum() / moved.sum() == pytest.approx(moved_y, abs=0.15)
    assert found >= 6


def test_the_image_moves_by_its_matrix(image):
    augmentation = Augmentation.parse("flip,crop:0.4,rotate:20,translate:0.1")
    for number in range(4):
        matrix = augmentation.geometric_matrix(seed(number), [SIZE, SIZE])
        np.testing.assert_allclose(augment(str(augmentation), image, number), warping.warp(tf.constant(image), matrix))


def test_flips_are_equal_with_and_without_resampling(image):
    matrix = Augmentation.parse("flip:1,flip_vertical:1").geometric_matrix(seed(1), [SIZE, SIZE])
    np.testing.assert_allclose(warping.warp(tf.constant(image), matrix), image[::-1, ::-1], atol=1e-2)


def test_crop_enlarges_a_part_of_the_image(image):
    augmentation = Augmentation.parse("crop:0.5")
    corners = np.array([[0, 0, 1], [SIZE, SIZE, 1]], float).T
    areas = []
    for number in range(200):
        matrix = augmentation.geometric_matrix(seed(number), [SIZE, SIZE]).numpy()
        (left, right), (top, bottom), _ = np.linalg.inv(matrix) @ corners
        assert -1e-3 < left < right < SIZE + 1e-3
        assert -1e-3 < top < bottom < SIZE + 1e-3
        areas.append((right - left) * (bottom - top) / SIZE**2)
        assert 3 / 4 - 1e-3 < (right - left) / (bottom - top) < 4 / 3 + 1e-3
    assert 0.48 < min(areas) < 0.56
    assert 0.94 < max(areas) <= 1.0001


def test_angles_and_moves_stay_within_their_strength():
    augmentation = Augmentation.parse("rotate:15,translate:0.2")
    angles, moves = [], []
    for number in range(200):
        matrix = augmentation.geometric_matrix(seed(number), [50, 100]).numpy()
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
        moves.append((matrix @ (50, 25, 1))[:2] - (50, 25))
    assert 13 < np.max(np.abs(angles)) <= 15.001
    assert abs(np.mean(angles)) < 2
    assert np.all(np.abs(moves) <= (20.001, 10.001))
    assert np.all(np.max(np.abs(moves), 0) > (18, 9))


def test_masks_move_with_nearest_values():
    mask = np.zeros((SIZE, SIZE, 1), np.uint8)
    mask[10:30, 5:20] = 3
    matrix = Augmentation.parse("rotate:30").geometric_matrix(seed(2), [SIZE, SIZE])
    moved = warping.warp(tf.constant(mask), matrix, "nearest", fill=255.0).numpy()
    assert set(np.unique(moved)) == {0, 3, 255}


@pytest.mark.parametrize(
    ("enhance", "arguments"),
    [
        (ImageEnhance.Brightness, (0.7, 1, 1, 0)),
        (ImageEnhance.Contrast, (1, 1.4, 1, 0)),
        (ImageEnhance.Color, (1, 1, 0.3, 0)),
    ],
)
def test_colours_as_pillow(enhance, arguments, image):
    factor = next(argument for argument in arguments if argument not in (0, 1))
    expected = np.array(enhance(Image.fromarray(image.astype(np.uint8))).enhance(factor)).astype(np.float32)
    changed = colours.adjust(tf.constant(image), *(tf.constant(float(argument)) for argument in arguments))
    np.testing.assert_allclose(changed, expected, atol=1.6)  # Pillow rounds downwards


def test_hue_turns_and_keeps_grey(image):
    one, turn = tf.constant(1.0), tf.constant(1 / 3)
    grey = tf.fill([4, 4, 3], 120.0)
    np.testing.assert_allclose(colours.adjust(grey, one, one, one, turn), grey, atol=0.1)
    calm = tf.constant(image * 0.2 + 100)
    thrice = calm
    for _ in range(3):
        thrice = colours.adjust(thrice, one, one, one, turn)
    np.testing.assert_allclose(thrice, calm, atol=0.2)
    assert np.abs(colours.adjust(calm, one, one, one, turn) - calm).mean() > 5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (colours.autocontrast, ImageOps.autocontrast),
        (colours.equalize, ImageOps.equalize),
        (lambda image: colours.solarize(image, 128), ImageOps.solarize),
        (lambda image: colours.posterize(image, 3), lambda image: ImageOps.posterize(image, 3)),
        (lambda image: colours.sharpness(image, 1.8), lambda image: ImageEnhance.Sharpness(image).enhance(1.8)),
        (lambda image: colours.sharpness(image, 0.1), lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
    ],
)
def test_randaugment_operations_as_pillow(change, expected, image):
    for pixels in (image, np.full_like(image, 77)):
        wanted = np.array(expected(Image.fromarray(pixels.astype(np.uint8)))).astype(np.float32)
        np.testing.assert_allclose(change(tf.constant(pixels)), wanted, atol=1.6)


def test_randaugment_draws_every_operation(image):
    from keras_transfer.vision.augmentation import _draw

    drawn = {int(_draw(seed(number))["operation_0"]) for number in range(200)}
    assert drawn == set(range(len(_OPERATIONS)))


def test_erase_paints_one_rectangle(image):
    light = image * 0 + 10
    shares = []
    for number in range(60):
        changed = (augment("erase:1", light, number) != light).all(-1)
        rows, columns = changed.any(1), changed.any(0)
        np.testing.assert_array_equal(changed, np.outer(rows, columns))
        shares.append(changed.mean())
    assert 0.005 < min(shares) < max(shares) < 0.25
    untouched = sum(np.array_equal(augment("erase:0.25", light, number), light) for number in range(100))
    assert 60 < untouched < 90


@pytest.mark.parametrize("text", ["mixup:0.4", "cutmix:1", "mixup:0.2,cutmix:1"])
def test_mixing_keeps_targets_and_pixels_in_step(text):
    """Images of one colour each: the mean colour says the share of each image, which the targets must state."""
    size, count = 32, 16
    augmentation = Augmentation.parse(text)
    assert augmentation.mixes
    values = np.arange(count, dtype=np.float32) * 10
    images = np.broadcast_to(values[:, None, None, None], (count, size, size, 3)).copy()
    targets = np.eye(count, dtype=np.float32)
    seeds = tf.stack([seed(number) for number in range(count)])
    mixed, mixed_targets = (part.numpy() for part in augmentation.batch(images, targets, seeds))
    again, _ = augmentation.batch(images, targets, seeds)
    np.testing.assert_array_equal(mixed, again)
    assert mixed.shape == images.shape
    np.testing.assert_allclose(mixed_targets.sum(1), 1, atol=1e-5)
    assert mixed_targets.min() >= 0
    np.testing.assert_allclose(mixed_targets @ values, mixed.mean((1, 2, 3)), atol=0.05)
    own = np.diag(mixed_targets)
    assert own.min() >= 0.5 - 1e-3 if "cutmix" not in text else own.min() >= 0.4
    assert len(np.unique(own.round(4))) > count // 2
    np.testing.assert_allclose(own + mixed_targets[np.arange(count), np.arange(count) - 1], 1, atol=1e-5)


def test_cutmix_sets_in_a_rectangle_and_mixup_does_not():
    images = np.zeros((8, 24, 24, 3), np.float32)
    images[::2] = 200
    seeds = tf.stack([seed(number) for number in range(8)])
    cut, _ = Augmentation.parse("cutmix").batch(images, np.eye(8, dtype=np.float32), seeds)
    assert set(np.unique(cut)) == {0, 200}
    added, _ = Augmentation.parse("mixup:1").batch(images, np.eye(8, dtype=np.float32), seeds)
    assert np.all(np.ptp(added.numpy(), (1, 2)) == 0)
    assert len(np.unique(added)) > 4


@pytest.mark.parametrize("count", [0, 1])
def test_mixing_an_empty_batch_and_a_single_image(count, image):
    traced = tf.function(
        Augmentation.parse("mixup,cutmix").batch,
        input_signature=[
            tf.TensorSpec([None, SIZE, SIZE, 3]),
            tf.TensorSpec([None, 5]),
            tf.TensorSpec([None, 2], tf.int32),
        ],
    )
    images, targets = np.repeat(image[None], count, 0), np.eye(5, dtype=np.float32)[:count]
    mixed, mixed_targets = traced(images, targets, tf.ones([count, 2], tf.int32))
    np.testing.assert_allclose(mixed, images, atol=1e-3)
    np.testing.assert_allclose(mixed_targets, targets, atol=1e-6)


def test_parse_and_back():
    parsed = Augmentation.parse("flip,crop:0.2, rotate:10,color:0.2,randaugment,mixup:0.2,cutmix:1.0")
    assert parsed == Augmentation(0.5, 0, 0.2, 10, 0, 0.2, 9, 0, 0.2, 1.0)
    assert str(parsed) == "flip:0.5,crop:0.2,rotate:10,color:0.2,randaugment:9,mixup:0.2,cutmix:1"
    for text in (*PRESETS, "medium,mixup:0.2", "erase"):
        assert Augmentation.parse(str(Augmentation.parse(text))) == Augmentation.parse(text)
    assert str(Augmentation.parse("none")) == "none"
    changed = Augmentation.parse("strong,flip:0,mixup:0.5")
    assert (changed.flip, changed.mixup, changed.crop) == (0, 0.5, 0.6)


def test_presets_grow():
    strengths = [sum(map(bool, dataclasses.asdict(Augmentation.parse(preset)).values())) for preset in PRESETS]
    assert strengths == sorted(strengths)
    assert strengths[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "no such operation: 'flop' (did you mean flip?)"),
        ("heavy", "no such operation: 'heavy'. Expected none, light, medium, strong, or operations of flip"),
        ("colour:0.2", "did you mean color?"),
        ("rotate:200", "rotate: expected a number from 0 to 180, not '200'"),
        ("crop:much", "crop: expected a number from 0 to 0.95, not 'much'"),
        ("crop:nan", "crop: expected a number from 0 to 0.95, not 'nan'"),
        ("flip,flip:1", "flip is named twice"),
        ("", "no such operation: ''"),
        ("turn:3,crop:2", "'turn' (did you mean strong?); crop: expected"),
    ],
)
def test_faults_are_named_together(text, message):
    with pytest.raises(ValueError) as caught:
        Augmentation.parse(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)

"""The detector's head, its targets and loss, and its maps read back as boxes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.vision import detector
from keras_transfer.vision.detector import IGNORED, PADDED

SIDE = 64


def features(side: int = SIDE, strides: tuple[int, ...] = (4, 8, 16, 32)) -> dict[str, keras.KerasTensor]:
    return {str(s): keras.KerasTensor((None, -(-side // s), -(-side // s), 8 + s), name=str(s)) for s in strides}


def perfect_maps(boxes, classes, count: int, side: int = SIDE, stride: int = 8) -> dict[str, tf.Tensor]:
    """The outputs of a head that knows: hot in the cell of each middle, and the right sides in every cell near it."""
    cells = -(-side // stride)
    heat, sides = np.full((1, cells, cells, count), -12.0, np.float32), np.ones((1, cells, cells, 4), np.float32)
    middle = (np.arange(cells) + 0.5) * stride
    for (x1, y1, x2, y2), label in sorted(
        zip(boxes, classes, strict=True), key=lambda one: -(one[0][2] - one[0][0]) * (one[0][3] - one[0][1])
    ):
        column, row = int((x1 + x2) / 2 // stride), int((y1 + y2) / 2 // stride)
        heat[0, row, column, label] = 12
        for y in range(max(row - 2, 0), min(row + 3, cells)):
            for x in range(max(column - 2, 0), min(column + 3, cells)):
                sides[0, y, x] = np.maximum([middle[x] - x1, middle[y] - y1, x2 - middle[x], y2 - middle[y]], 0.1)
    return {"heat": tf.constant(heat), "sides": tf.constant(sides)}


def targets(boxes, classes, most: int = 6) -> dict[str, tf.Tensor]:
    padded = np.zeros((1, most, 4), np.float32)
    padded[0, : len(boxes)] = np.reshape(boxes, (-1, 4))
    labels = np.full((1, most), PADDED, np.int32)
    labels[0, : len(classes)] = classes
    return {"boxes": tf.constant(padded), "classes": tf.constant(labels)}


def loss(wanted, outputs, side: int = SIDE) -> float:
    return float(detector.loss(wanted, outputs, side)[0])


BOXES = [[4, 4, 24, 36], [40, 8, 60, 28], [20, 40, 60, 62]]


@pytest.mark.parametrize("side, stride, cells", [(64, 8, 8), (64, 4, 16), (75, 8, 10), (100, 4, 25), (33, 8, 5)])
def test_the_head_answers_at_its_stride_whatever_the_side(side: int, stride: int, cells: int):
    head = detector.build_head(features(side), 3, stride, 20.0)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.output.items()}
    assert shapes == {"heat": (None, cells, cells, 3), "sides": (None, cells, cells, 4)}
    assert detector.stride_of(side, cells) == stride


@pytest.mark.parametrize("strides", [(8, 16, 32), (16, 32), (4,), (8, 32)])
def test_the_head_takes_the_levels_that_there_are(strides: tuple[int, ...]):
    head = detector.build_head(features(64, strides), 1, 8, 20.0)
    nearest = 8 if 8 in strides else min(strides)
    assert head.output["heat"].shape[1] == 64 // nearest


def test_a_new_head_expects_little_everywhere_and_boxes_of_the_typical_side():
    head = detector.build_head(features(), 2, 8, 24.0)
    found = head({name: tf.random.normal([2, *t.shape[1:]], seed=1) for name, t in features().items()})
    assert tf.reduce_max(tf.sigmoid(found["heat"])) < 0.03
    assert found["sides"].numpy() == pytest.approx(np.full((2, 8, 8, 4), 12.0), rel=0.3)


def test_perfect_maps_cost_nearly_nothing_and_every_mistake_costs():
    wanted, right = targets(BOXES, [0, 1, 1]), perfect_maps(BOXES, [0, 1, 1], 2)
    assert loss(wanted, right) < 0.02
    assert loss(targets(BOXES, [1, 1, 1]), right) > 1  # another class
    assert loss(targets(BOXES[:2], [0, 1]), right) > 1  # one too many
    assert loss(targets([*BOXES, [0, 44, 16, 60]], [0, 1, 1, 0]), right) > 1  # one missed
    smaller = {**right, "sides": right["sides"] * 0.7}
    assert loss(wanted, smaller) > loss(wanted, right) + 0.3


def test_nothing_is_punished_inside_a_crowd_and_only_there():
    outputs = perfect_maps(BOXES, [0, 0, 0], 1)
    without, crowd = (
        targets(BOXES[:1], [0]),
        targets([BOXES[0], [38, 6, 62, 30], [18, 38, 62, 63]], [0, IGNORED, IGNORED]),
    )
    assert loss(without, outputs) > 5 and loss(crowd, outputs) < 0.02
    elsewhere = targets([BOXES[0], [30, 0, 34, 4]], [0, IGNORED])
    assert loss(elsewhere, outputs) == pytest.approx(loss(without, outputs), rel=1e-4)


def test_a_picture_without_objects_has_a_finite_loss_and_gradient():
    heat, sides = tf.Variable(tf.zeros([1, 8, 8, 2])), tf.Variable(tf.ones([1, 8, 8, 4]))
    with tf.GradientTape() as tape:
        value = detector.loss(targets([], []), {"heat": heat, "sides": sides}, SIDE)
    gradients = tape.gradient(value, [heat, sides])
    assert np.isfinite(value.numpy()).all() and all(np.isfinite(g.numpy()).all() for g in gradients)
    assert tf.reduce_max(tf.abs(gradients[0])) > 0 and not gradients[1].numpy().any()


def test_each_example_has_its_own_loss_whatever_it_is_batched_with():
    first, second = targets(BOXES, [0, 1, 1]), targets(BOXES[1:], [0, 0])
    outputs = perfect_maps(BOXES, [0, 1, 0], 2)
    both = {name: tf.concat([first[name], second[name]], 0) for name in first}
    twice = {name: tf.concat([value, value], 0) for name, value in outputs.items()}
    found = detector.loss(both, twice, SIDE).numpy()
    assert found == pytest.approx([loss(first, outputs), loss(second, outputs)], rel=1e-5)


def test_each_object_weighs_the_same_however_many_its_picture_has():
    nothing = {"heat": tf.zeros([1, 8, 8, 1]), "sides": tf.fill([1, 8, 8, 4], 10.0)}
    # Far apart and alike, so that neither changes what the other costs.
    one, two = [[8.0, 8, 24, 24]], [[8.0, 8, 24, 24], [40, 40, 56, 56]]
    empty = loss(targets([], []), nothing)
    assert loss(targets(two, [0, 0]), nothing) - empty == pytest.approx(
        2 * (loss(targets(one, [0]), nothing) - empty), rel=1e-3
    )
    halved = float(detector.loss(targets(two, [0, 0]), nothing, SIDE, 2.0)[0])
    assert halved == pytest.approx(loss(targets(two, [0, 0]), nothing) / 2)


def test_half_precision_outputs_are_scored_in_full():
    outputs = {name: tf.cast(value, tf.bfloat16) for name, value in perfect_maps(BOXES, [0, 1, 1], 2).items()}
    found = detector.loss(targets(BOXES, [0, 1, 1]), outputs, SIDE)
    assert found.dtype == tf.float32 and found[0] < 0.05


def test_of_nested_objects_the_small_one_keeps_its_cells():
    boxes = [[0, 0, 64, 64], [26, 26, 38, 38]]
    large, small = (perfect_maps([box], [0], 1) for box in boxes)
    # Both have their middle in one cell; the cells around it are near the middle of the large one alone.
    sides = large["sides"].numpy()
    sides[0, 4, 4] = small["sides"][0, 4, 4]
    both = {"heat": large["heat"], "sides": tf.constant(sides)}
    assert loss(targets(boxes, [0, 0]), both) < loss(targets(boxes, [0, 0]), large) - 0.1


@pytest.mark.parametrize("stride", [4, 8])
def test_maps_are_read_back_as_the_boxes_that_made_them(stride: int):
    outputs = perfect_maps(BOXES, [0, 1, 1], 2, stride=stride)
    boxes, scores, classes = (value.numpy()[0] for value in detector.read_maps(outputs, SIDE, 10))
    hot = scores > 0.5
    found = sorted(map(list, zip(boxes[hot].tolist(), classes[hot].tolist(), strict=True)))
    assert hot.sum() == 3 and (np.diff(scores) <= 0).all()
    for (box, label), (wanted, wanted_label) in zip(found, sorted(zip(BOXES, [0, 1, 1], strict=True)), strict=True):
        assert box == pytest.approx(wanted) and label == wanted_label


def test_the_warmest_cell_speaks_for_its_neighbours():
    outputs = perfect_maps(BOXES[:1], [0], 1)
    heat = outputs["heat"].numpy()
    row, column = np.argwhere(heat[0, ..., 0] > 0)[0]
    heat[0, row, column + 1, 0] = 11
    _, scores, _ = detector.read_maps({**outputs, "heat": tf.constant(heat)}, SIDE, 10)
    assert (scores.numpy() > 0.5).sum() == 1


def test_a_small_head_learns_where_bright_squares_are():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    corner = random.integers(0, 44, (32, 2)) + 0.0
    boxes = np.concatenate([corner, corner + random.integers(10, 20, (32, 1))], 1).astype(np.float32)
    images = np.zeros((32, SIDE, SIDE, 1), np.float32)
    for image, (x1, y1, x2, y2) in zip(images, boxes.astype(int), strict=True):
        image[y1:y2, x1:x2] = 1
    pixels = keras.Input((SIDE, SIDE, 1))
    fine = keras.layers.Conv2D(16, 8, 8, activation="relu")(pixels)
    coarse = keras.layers.Conv2D(16, 3, 2, "same", activation="relu")(fine)
    levels = {"8": fine, "16": coarse}
    model = keras.Model(pixels, detector.build_head(levels, 1, 8, 15.0)(levels))
    optimizer = keras.optimizers.Adam(3e-3)
    wanted = {"boxes": tf.constant(boxes[:, None]), "classes": tf.zeros([32, 1], tf.int32)}

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(detector.loss(wanted, model(images), SIDE))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    optimizer.build(model.trainable_variables)
    first = float(step())
    for _ in range(120):
        last = float(step())
    found, scores, _ = (value.numpy()[:, 0] for value in detector.read_maps(model(images), SIDE, 1))
    assert last < first / 5 and (scores > 0.3).mean() > 0.9
    assert np.abs(found - boxes).mean() < 2

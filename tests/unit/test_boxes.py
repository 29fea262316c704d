"""Boxes in the graph: overlaps, movements, and suppression of doubles."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.vision import boxes, warping


def random_boxes(count: int, seed: int = 0, spread: float = 80) -> np.ndarray:
    random = np.random.default_rng(seed)
    corner, size = random.uniform(0, spread, (count, 2)), random.uniform(1, 40, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def covered(box: np.ndarray, step: float = 0.25) -> np.ndarray:
    """Which points of a fine grid lie in a box: what areas and overlaps are counted from."""
    points = np.arange(0, 130, step) + step / 2
    inside_x, inside_y = (points >= box[0]) & (points < box[2]), (points >= box[1]) & (points < box[3])
    return inside_y[:, None] & inside_x[None]


def test_overlap_is_what_counting_points_gives():
    first, second = random_boxes(6), random_boxes(5, seed=1)
    found = boxes.overlap(tf.constant(first), tf.constant(second)).numpy()
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            a, b = covered(one), covered(other)
            assert found[i, j] == pytest.approx((a & b).sum() / (a | b).sum(), abs=0.03)


def test_a_box_overlaps_itself_fully_and_a_far_or_empty_one_not_at_all():
    some = tf.constant([[0.0, 0, 10, 10], [20, 20, 30, 40], [5, 5, 5, 9]])
    found = boxes.overlap(some, some).numpy()
    assert found[0, 0] == found[1, 1] == 1 and found[0, 1] == 0
    assert found[2].tolist() == [0, 0, 0]


def test_generalised_overlap_tells_near_misses_from_far_ones():
    box = tf.constant([[0.0, 0, 10, 10]])
    same, near, far = (
        boxes.generalised_overlap(box, tf.constant([[x, 0.0, x + 10, 10]])).numpy()[0] for x in (0, 12, 60)
    )
    assert same == pytest.approx(1)
    assert 0 > near > far > -1
    assert near == pytest.approx(-2 / 22)  # nothing shared; 2 of 22 columns of the hull belong to neither


def test_generalised_overlap_has_gradients_without_nan_for_empty_boxes():
    box = tf.Variable([[3.0, 3, 3, 3], [0, 0, 4, 4]])
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(boxes.generalised_overlap(box, tf.zeros([2, 4])))
    assert np.isfinite(tape.gradient(value, box).numpy()).all()


def test_clip_keeps_the_part_inside_the_image():
    found = boxes.clip(tf.constant([[-5.0, 2, 30, 12], [40, 40, 50, 50]]), tf.constant(10), tf.constant(20)).numpy()
    assert found.tolist() == [[0, 2, 20, 10], [20, 10, 20, 10]]
    assert boxes.area(tf.constant(found)).numpy().tolist() == [160, 0]


@pytest.mark.parametrize("turn", [0.0, 90.0, 180.0, 37.0])
def test_a_moved_box_holds_its_moved_corners_and_no_more(turn: float):
    matrix = warping.about(50.0, 50.0, warping.rotation(tf.constant(turn)))
    some = random_boxes(4)
    found = boxes.move(tf.constant(some), matrix).numpy()
    for box, moved in zip(some, found, strict=True):
        corners = np.array([[x, y, 1] for x in box[[0, 2]] for y in box[[1, 3]]]) @ matrix.numpy().T
        assert moved == pytest.approx([*corners[:, :2].min(0), *corners[:, :2].max(0)], abs=1e-3)


def plain_suppression(some, scores, classes, limit):
    """The textbook's loop."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        overlaps = boxes.overlap(tf.constant(some[[i]]), tf.constant(some[kept].reshape(-1, 4))).numpy()[0]
        if not (overlaps[classes[kept] == classes[i]] > limit).any():
            kept.append(int(i))
    return kept


def test_suppression_is_the_textbooks_within_each_class():
    random = np.random.default_rng(3)
    some, scores, classes = (
        random_boxes(60, 3, 15),
        random.permutation(60).astype(np.float32) / 60,
        random.integers(0, 3, 60),
    )
    scores = scores * 0.9 + 0.1
    found = boxes.suppress(tf.constant(some), tf.constant(scores), tf.constant(classes, tf.int32), 100, 0.5, 0.05)
    assert found.numpy().tolist() == plain_suppression(some, scores, classes, 0.5)
    assert len(found) < 60


def test_suppression_leaves_out_low_scores_and_what_is_too_many():
    apart = tf.constant([[i * 20.0, 0, i * 20 + 10, 10] for i in range(5)])
    scores = tf.constant([0.9, 0.04, 0.6, 0.7, 0.8])
    found = boxes.suppress(apart, scores, tf.zeros(5, tf.int32), 3, 0.5, 0.05)
    assert found.numpy().tolist() == [0, 4, 3]


def test_suppression_of_nothing_is_nothing():
    assert boxes.suppress(tf.zeros([0, 4]), tf.zeros([0]), tf.zeros([0], tf.int32), 5, 0.5, 0.05).shape == (0,)

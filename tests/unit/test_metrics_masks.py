"""Metrics of masks against a naive reference, pixel by pixel, and at their edges."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_transfer.metrics import masks as metrics

IGNORE = 255
NAMES = ("background", "disc", "square")


def blobs(seed: int, size: tuple[int, int] = (30, 41), classes: int = 3) -> np.ndarray:
    """Random rectangles of classes."""
    random = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for _ in range(6):
        top, left = random.integers(0, size[0] - 6), random.integers(0, size[1] - 6)
        mask[top : top + random.integers(3, 14), left : left + random.integers(3, 14)] = random.integers(0, classes)
    return mask


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask, moved a little and disturbed, and the mask with an ignored part."""
    reference = blobs(seed)
    predicted = np.roll(reference, (seed % 3, -1), (0, 1))
    predicted = np.where(np.random.default_rng(seed).random(predicted.shape) < 0.02, 1, predicted).astype(np.uint8)
    reference[3:7, 10:20] = IGNORE
    return predicted, reference


def naive_iou(pairs: list[tuple[np.ndarray, np.ndarray]], number: int) -> tuple[float | None, float | None]:
    """IoU and Dice of one class over all pixels."""
    both = either = total = 0
    for predicted, reference in pairs:
        for place in np.ndindex(*reference.shape):
            if reference[place] == IGNORE:
                continue
            a, b = predicted[place] == number, reference[place] == number
            both += a and b
            either += a or b
            total += int(a) + int(b)
    return (both / either, 2 * both / total) if either else (None, None)


def naive_edge(mask: np.ndarray, ignored: np.ndarray, number: int) -> list[tuple[int, int]]:
    height, width = mask.shape
    found = []
    for y, x in np.ndindex(height, width):
        if mask[y, x] != number or ignored[y, x]:
            continue
        around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [(b, a) for b, a in around if 0 <= b < height and 0 <= a < width and not ignored[b, a]]
        if any(mask[place] != number for place in inside):
            found.append((y, x))
    return found


def naive_boundary_f1(predicted: np.ndarray, reference: np.ndarray, number: int) -> float | None:
    ignored = reference == IGNORE
    ours, theirs = naive_edge(predicted, ignored, number), naive_edge(reference, ignored, number)
    if not ours and not theirs:
        return None
    if not ours or not theirs:
        return 0.0
    height, width = reference.shape
    most = 0.0075 * (height**2 + width**2) ** 0.5

    def near(asked, target):
        hits = [any((y - b) ** 2 + (x - a) ** 2 <= most**2 for b, a in target) for y, x in asked]
        return sum(hits) / len(hits)

    precision, recall = near(ours, theirs), near(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_overlap_equals_the_naive_one():
    pairs = [pair(seed) for seed in range(4)]
    found = metrics.scores(metrics.count(iter(pairs), 3), NAMES)
    expected = [naive_iou(pairs, number) for number in range(3)]
    assert list(found["iou_by_class"].values()) == pytest.approx([iou for iou, _ in expected])
    assert list(found["dice_by_class"].values()) == pytest.approx([dice for _, dice in expected])
    assert found["mean_iou"] == pytest.approx(np.mean([iou for iou, _ in expected]))
    assert found["mean_dice"] == pytest.approx(np.mean([dice for _, dice in expected]))
    right = sum(int(((p == r) & (r != IGNORE)).sum()) for p, r in pairs)
    assert found["pixel_accuracy"] == pytest.approx(right / sum(int((r != IGNORE).sum()) for _, r in pairs))
    assert "foreground_iou" not in found


def test_boundaries_equal_the_naive_ones():
    # Of a diagonal of 51 pixels the tolerance is below one pixel; of 150 it is above.
    large = blobs(8, (90, 120))
    pairs = [*(pair(seed) for seed in range(4)), (np.roll(large, 1, 0), large), (np.roll(large, 2, 1), large)]
    by_class: list[list[float]] = [[], [], []]
    for predicted, reference in pairs:
        found = metrics.boundary_f1(predicted, reference, 3)
        for number in range(3):
            expected = naive_boundary_f1(predicted, reference, number)
            if expected is None:
                assert np.isnan(found[number])
            else:
                assert found[number] == pytest.approx(expected)
                by_class[number].append(expected)
    total = metrics.scores(metrics.count(pairs, 3), NAMES)["boundary_f1"]
    assert total == pytest.approx(np.mean([np.mean(values) for values in by_class if values]))


def test_boundaries_forgive_a_small_move_and_no_large_one():
    mask = np.zeros((200, 200), np.uint8)
    mask[50:150, 50:150] = 1
    assert metrics.boundary_f1(np.roll(mask, 2, 1), mask, 2)[1] == 1.0
    # Two of the four sides are still near.
    assert metrics.boundary_f1(np.roll(mask, 10, 1), mask, 2)[1] == pytest.approx(0.5, abs=0.06)
    assert metrics.boundary_f1(np.roll(mask, (20, 20), (0, 1)), mask, 2)[1] < 0.1


def test_what_is_right_scores_one():
    masks = [blobs(seed) for seed in range(3)]
    found = metrics.scores(metrics.count(((mask, mask) for mask in masks), 3), NAMES)
    for name in ("mean_iou", "mean_dice", "boundary_f1", "pixel_accuracy"):
        assert found[name] == 1.0
    assert set(found["iou_by_class"].values()) == {1.0}


def test_classes_that_are_nowhere_are_left_out_of_the_means():
    reference = np.zeros((10, 10), np.uint8)
    reference[:, 5:] = 1
    predicted = np.zeros((10, 10), np.uint8)
    predicted[:, 6:] = 1
    found = metrics.scores(metrics.count([(predicted, reference)], 3), NAMES)
    assert found["iou_by_class"] == {"background": pytest.approx(5 / 6), "disc": pytest.approx(4 / 5), "square": None}
    assert found["mean_iou"] == pytest.approx((5 / 6 + 4 / 5) / 2)
    # Given but not there: it counts, with nothing right.
    predicted[0, 0] = 2
    found = metrics.scores(metrics.count([(predicted, reference)], 3), NAMES)
    assert found["iou_by_class"]["square"] == 0.0
    assert found["mean_iou"] < 0.6


def test_ignored_pixels_count_nowhere():
    reference = np.zeros((12, 12), np.uint8)
    reference[:, 6:] = 1
    predicted = 1 - reference
    reference[:, :] = np.where(np.arange(12) < 3, reference, IGNORE)
    found = metrics.scores(metrics.count([(predicted, reference)], 2), NAMES[:2])
    assert found["pixel_accuracy"] == 0.0 and found["foreground_iou"] == 0.0
    reference[:] = IGNORE
    nothing = metrics.scores(metrics.count([(predicted, reference)], 2), NAMES[:2])
    assert nothing["mean_iou"] is None and nothing["pixel_accuracy"] is None and nothing["boundary_f1"] is None
    assert json.loads(json.dumps(nothing)) == nothing


def test_foreground_is_the_second_of_two_classes():
    reference = np.zeros((10, 10), np.uint8)
    reference[:4] = 1
    predicted = np.zeros((10, 10), np.uint8)
    predicted[:2] = 1
    found = metrics.scores(metrics.count([(predicted, reference)], 2), ("background", "nucleus"))
    assert found["foreground_iou"] == found["iou_by_class"]["nucleus"] == 0.5


def test_only_one_pair_is_held_at_a_time():
    alive = 0
    most = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is not None and self.shape == (64, 64)

    def pairs():
        nonlocal alive, most
        for seed in range(20):
            mask = np.array(blobs(seed, (64, 64))).view(Counted)
            alive += 1
            most = max(most, alive)
            yield mask, np.asarray(mask)

    found = metrics.count(pairs(), 3)
    assert len(found.real) == 20
    assert most <= 3


@pytest.mark.parametrize(
    ("predicted", "reference", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), r"one size.*\(4, 5\) and \(5, 4\)"),
        (np.zeros((4, 5), np.uint8), np.full((4, 5), 7, np.uint8), "below 2, or 255.*7"),
        (np.full((4, 5), 2, np.uint8), np.zeros((4, 5), np.uint8), "below 2, or 255.*2"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(predicted, reference, message):
    with pytest.raises(ValueError, match=message):
        metrics.count([(predicted, reference)], 2)


def test_intervals_hold_the_score_and_narrow_with_more_images():
    few = metrics.count([pair(seed) for seed in range(4)], 3, boundaries=False)
    many = metrics.count([pair(seed) for seed in range(60)], 3, boundaries=False)
    score = metrics.scores(many, NAMES)["mean_iou"]
    low, high = metrics.intervals(many)["mean_iou"]
    assert low < score < high
    assert set(metrics.intervals(many)) == {"mean_iou", "mean_dice", "pixel_accuracy"}
    wide = metrics.intervals(few)["mean_iou"]
    assert wide[1] - wide[0] > high - low
    two = metrics.count([(blobs(1, classes=2), blobs(2, classes=2)), (blobs(3, classes=2),) * 2], 2, boundaries=False)
    assert "foreground_iou" in metrics.intervals(two)
    assert metrics.intervals(metrics.count([], 2)) == {}

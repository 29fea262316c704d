"""Scores of boxes: COCO's numbers, without its limits and its talk."""

from __future__ import annotations

import numpy as np
import pytest

from keras_transfer.metrics import boxes as metrics

NAMES = ("cat", "dog")


def picture(boxes, classes=None, scores=None, crowd=None) -> dict:
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    found = {"boxes": boxes, "classes": np.array(classes if classes is not None else [0] * len(boxes), int)}
    if scores is not None:
        found["scores"] = np.array(scores, np.float32)
    else:
        found["crowd"] = np.array(crowd if crowd is not None else [False] * len(boxes), bool)
    return found


def grid(count: int, side: float = 10.0) -> np.ndarray:
    """Boxes that do not touch."""
    rows, columns = np.divmod(np.arange(count), 20)
    corner = np.stack([columns, rows], 1) * 2 * side
    return np.concatenate([corner, corner + side], 1)


def scored(predictions, references, threshold=0.5) -> dict:
    return metrics.score(predictions, references, NAMES, threshold)


def test_perfect_boxes_score_one_and_what_is_not_there_scores_none():
    truth = [picture([[0, 0, 50, 50], [60, 60, 90, 80]], [0, 1])]
    found = scored([picture([[0, 0, 50, 50], [60, 60, 90, 80]], [0, 1], [0.9, 0.8])], truth)
    assert (found["ap"], found["ap50"], found["ap75"]) == pytest.approx((1, 1, 1))
    assert found["ap_by_class"] == pytest.approx({"cat": 1, "dog": 1})
    assert found["ap_small"] == pytest.approx(1) and found["ap_medium"] == pytest.approx(1)
    assert found["ap_large"] is None
    assert (found["precision"], found["recall"], found["f1"], found["threshold"]) == (1, 1, 1, 0.5)


def test_a_class_without_objects_does_not_count():
    found = scored([picture([[0, 0, 50, 50]], [0], [0.9])], [picture([[0, 0, 50, 50]], [0])])
    assert found["ap50"] == pytest.approx(1) and found["ap_by_class"]["dog"] is None


def test_no_prediction_at_all_scores_zero_not_none():
    found = scored([picture([], [], [])], [picture([[0, 0, 50, 50]])])
    assert found["ap50"] == 0 and found["recall"] == 0 and found["precision"] is None and found["f1"] == 0


def test_no_object_at_all_scores_none():
    found = scored([picture([[0, 0, 9, 9]], [0], [0.9])], [picture([])])
    assert found["ap50"] is None and found["recall"] is None and found["precision"] == 0


def test_a_picture_of_more_than_a_hundred_objects_is_not_cut():
    boxes = grid(279)
    found = scored([picture(boxes, scores=np.linspace(0.9, 0.6, 279))], [picture(boxes)])
    assert found["ap50"] == pytest.approx(1) and found["recall"] == 1


def test_overlap_decides_by_its_level():
    # 10 of 20 columns off: 10 / 30 shared; 4 off: 16 / 24.
    truth = [picture([[0, 0, 20, 20]])]
    assert scored([picture([[10, 0, 30, 20]], scores=[0.9])], truth)["ap50"] == 0
    near = scored([picture([[4, 0, 24, 20]], scores=[0.9])], truth)
    assert near["ap50"] == pytest.approx(1) and near["ap75"] == 0 and near["ap"] == pytest.approx(0.4)


def test_the_second_box_on_one_object_is_wrong():
    found = scored([picture([[0, 0, 20, 20]] * 2, scores=[0.9, 0.8])], [picture([[0, 0, 20, 20]])])
    assert found["ap50"] == pytest.approx(1)  # all is found before the double comes
    assert found["precision"] == 0.5 and found["recall"] == 1 and found["f1"] == pytest.approx(2 / 3)


def test_boxes_in_a_crowd_are_neither_right_nor_wrong():
    truth = [picture([[0, 0, 20, 20], [100, 100, 300, 300]], [0, 0], crowd=[False, True])]
    answer = [picture([[0, 0, 20, 20], [110, 110, 140, 140], [200, 200, 240, 240]], scores=[0.7, 0.9, 0.8])]
    found = scored(answer, truth)
    assert found["ap50"] == pytest.approx(1) and found["precision"] == 1 and found["recall"] == 1


def test_scoring_prints_nothing(capfd):
    scored([picture(grid(3), scores=[0.9, 0.8, 0.7])], [picture(grid(3))])
    assert capfd.readouterr() == ("", "")


def noisy(pictures: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Predictions that are better the higher their score, over two classes."""
    random = np.random.default_rng(seed)
    predictions, references = [], []
    for _ in range(pictures):
        boxes, classes = grid(12), random.integers(0, 2, 12)
        scores = random.uniform(0.05, 1, 12)
        moved = boxes + np.where(random.uniform(size=12) < scores, 0, 8)[:, None] * [1, 0, 1, 0]
        predictions.append(picture(moved, classes, scores))
        references.append(picture(boxes[:10], classes[:10]))
    return predictions, references


def test_our_average_precision_for_the_intervals_is_cocos():
    predictions, references = noisy(8)
    evaluation = metrics.evaluate(predictions, references, 2)
    found = metrics.matches(evaluation, 8, 2)
    ours = []
    for label in range(2):
        order = np.argsort(-found.score, kind="stable")
        rows = order[found.label[order] == label]
        total = int(found.objects[:, label].sum())
        ours.append(metrics.average_precision(found.right[rows], np.ones(len(rows), int), total))
    theirs = scored(predictions, references)["ap_by_class"]
    assert ours == pytest.approx(list(theirs.values()), abs=1e-6) and 0.1 < ours[0] < 0.95


def test_intervals_hold_the_scores_and_are_left_out_for_few_pictures():
    predictions, references = noisy(30)
    found, scores = metrics.intervals(predictions, references, NAMES, 0.5), scored(predictions, references)
    assert set(found) == {"ap50", "precision", "recall", "f1"}
    for name, (low, high) in found.items():
        assert low < scores[name] < high and high - low < 0.3
    assert metrics.intervals(predictions[:3], references[:3], NAMES, 0.5) == {}


def test_the_threshold_is_where_f1_is_best():
    predictions, references = noisy(10)
    chosen = metrics.choose_threshold(predictions, references, 2)
    best = scored(predictions, references, chosen)["f1"]
    others = [scored(predictions, references, t)["f1"] for t in np.linspace(0.05, 0.95, 19)]
    assert best >= max(others) - 1e-9


def test_a_threshold_needs_a_right_box():
    assert metrics.choose_threshold([picture([], [], [])], [picture([[0, 0, 9, 9]])], 2) is None
    wrong = [picture([[50, 50, 60, 60]], scores=[0.9])]
    assert metrics.choose_threshold(wrong, [picture([[0, 0, 9, 9]])], 2) is None

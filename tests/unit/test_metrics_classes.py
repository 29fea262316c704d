"""Metrics of classes and their intervals, against scikit-learn on seeded random cases and by hand on the edges."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from keras_transfer.metrics import classes, intervals

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def names_of(count: int) -> list[str]:
    return [f"class {c}" for c in range(count)]


def single_case(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Probabilities with ties, targets that often lack a class."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 9))
    n = int(random.integers(5, 120))
    targets = random.integers(0, max(2, count - seed % 2), n)
    logits = random.normal(size=(n, count)) + 1.5 * np.eye(count)[targets]
    logits = np.round(logits * 2) / 2 if seed % 3 == 0 else logits
    powers = np.exp(logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32), targets, count


def multi_case(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    random = np.random.default_rng(seed)
    count, n = int(random.integers(2, 7)), int(random.integers(5, 150))
    targets = (random.random((n, count)) < random.uniform(0.1, 0.7, count)).astype(np.float32)
    scores = 1 / (1 + np.exp(-(random.normal(size=(n, count)) + 2 * targets - 1)))
    return (np.round(scores, 1) if seed % 2 else scores).astype(np.float32), targets, count


@pytest.mark.parametrize("seed", range(24))
def test_single_label_agrees_with_scikit_learn(seed: int) -> None:
    chances, targets, count = single_case(seed)
    ours = classes.single_label(chances, targets, names_of(count))
    predicted = chances.argmax(1)
    present = np.unique(targets)
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(targets, predicted))
    recalls = sklearn_metrics.recall_score(targets, predicted, average=None, labels=present, zero_division=0)
    assert ours["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert ours["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(targets, predicted, average="macro", zero_division=0)
    )
    wide = chances.astype(np.float64)
    wide /= wide.sum(1, keepdims=True)
    theirs = sklearn_metrics.log_loss(targets, wide, labels=np.arange(count))
    assert ours["log_loss"] == pytest.approx(theirs, rel=1e-5)
    if count > 5:
        if all(len(np.unique(row)) == count for row in chances):  # scikit-learn ranks equal ones in no stated order
            top = sklearn_metrics.top_k_accuracy_score(targets, wide, k=5, labels=np.arange(count))
            assert ours["top_5_accuracy"] == pytest.approx(top)
    else:
        assert "top_5_accuracy" not in ours
    wanted = [1] if count == 2 else [c for c in present if (targets != c).any()]
    areas = [sklearn_metrics.roc_auc_score(targets == c, chances[:, c]) for c in wanted]
    assert ours["auroc"] == pytest.approx(np.mean(areas))
    matrix = sklearn_metrics.confusion_matrix(targets, predicted, labels=np.arange(count))
    assert ours["confusion_matrix"] == matrix.tolist()
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        targets, predicted, labels=np.arange(count), zero_division=np.nan
    )
    for c, name in enumerate(names_of(count)):
        row = ours["per_class"][name]
        assert row["support"] == support[c]
        for key, theirs in (("precision", precision[c]), ("recall", recall[c])):
            assert row[key] == (None if np.isnan(theirs) else pytest.approx(theirs))
        assert (
            row["f1"] is None if support[c] == 0 and not (predicted == c).any() else row["f1"] == pytest.approx(f1[c])
        )
    json.dumps(ours, allow_nan=False)


@pytest.mark.parametrize("seed", range(24))
def test_multi_label_agrees_with_scikit_learn(seed: int) -> None:
    chances, targets, count = multi_case(seed)
    thresholds = np.random.default_rng(seed).uniform(0.2, 0.8, count)
    ours = classes.multi_label(chances, targets, thresholds, names_of(count))
    given = chances >= thresholds.astype(np.float32)
    present = [c for c in range(count) if targets[:, c].any() or given[:, c].any()]
    each = sklearn_metrics.f1_score(targets, given, average=None, zero_division=0)
    assert ours["macro_f1"] == pytest.approx(each[present].mean())
    assert ours["micro_f1"] == pytest.approx(sklearn_metrics.f1_score(targets, given, average="micro", zero_division=0))
    assert ours["exact_match"] == pytest.approx(sklearn_metrics.accuracy_score(targets, given))
    assert ours["hamming_loss"] == pytest.approx(sklearn_metrics.hamming_loss(targets, given))
    positive = [c for c in range(count) if targets[:, c].any()]
    precisions = [sklearn_metrics.average_precision_score(targets[:, c], chances[:, c]) for c in positive]
    assert ours["mean_average_precision"] == pytest.approx(np.mean(precisions))
    both = [c for c in positive if not targets[:, c].all()]
    areas = [sklearn_metrics.roc_auc_score(targets[:, c], chances[:, c]) for c in both]
    assert ours["auroc"] == pytest.approx(np.mean(areas))
    losses = [sklearn_metrics.log_loss(targets[:, c], chances[:, c].astype(float), labels=[0, 1]) for c in range(count)]
    if chances.min() > 0 and chances.max() < 1:
        assert ours["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    json.dumps(ours, allow_nan=False)


@pytest.mark.parametrize("seed", range(12))
def test_ordinal_agrees_with_scikit_learn(seed: int) -> None:
    chances, targets, count = single_case(seed)
    ratings = [str(1 + c) for c in range(count)]
    ours = classes.ordinal(chances, targets, ratings)
    predicted = chances.argmax(1)
    assert ours["accuracy"] == pytest.approx((predicted == targets).mean())
    assert ours["mean_absolute_error"] == pytest.approx(sklearn_metrics.mean_absolute_error(targets, predicted))
    assert ours["quadratic_kappa"] == pytest.approx(
        sklearn_metrics.cohen_kappa_score(targets, predicted, weights="quadratic")
    )
    assert ours["within_one"] == pytest.approx((abs(predicted - targets) <= 1).mean())
    json.dumps(ours, allow_nan=False)


def test_mean_absolute_error_is_in_the_ratings_own_unit() -> None:
    chances = np.eye(3)[[0, 2, 1]]
    assert classes.ordinal(chances, np.array([0, 0, 0]), ["1", "1.5", "5"])["mean_absolute_error"] == pytest.approx(1.5)
    assert classes.ordinal(chances, np.array([0, 0, 0]), ["bad", "so", "good"])["mean_absolute_error"] == 1.0


def test_kappa_of_one_rating_is_none() -> None:
    scores = classes.ordinal(np.eye(3)[[1, 1]], np.array([1, 1]), names_of(3))
    assert scores["quadratic_kappa"] is None
    assert scores["accuracy"] == 1.0


def test_calibration_error_by_hand() -> None:
    # Ten at confidence 0.8, six right: 0.2 too sure; ten at 0.6, nine right: 0.3 too modest.
    chances = np.array([[0.8, 0.2]] * 10 + [[0.6, 0.4]] * 10)
    targets = np.array([0] * 6 + [1] * 4 + [0] * 9 + [1])
    assert classes.calibration_error(chances, targets) == pytest.approx(0.25)
    assert classes.calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0


def test_the_random_forecast_is_calibrated() -> None:
    random = np.random.default_rng(0)
    chances = random.dirichlet(np.ones(4), 20_000)
    targets = (chances.cumsum(1) > random.random((20_000, 1))).argmax(1)
    assert classes.calibration_error(chances, targets) < 0.02
    assert classes.calibration_error(chances**3 / (chances**3).sum(1, keepdims=True), targets) > 0.1


def test_one_class_in_the_targets_has_no_auroc() -> None:
    scores = classes.single_label(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]), names_of(2))
    assert scores["auroc"] is None
    assert scores["balanced_accuracy"] == 0.5
    assert scores["per_class"]["class 1"] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}


def test_top_5_ranks_equal_probabilities_as_argmax_does() -> None:
    chances = np.full((7, 7), 1 / 7)
    scores = classes.single_label(chances, np.arange(7), names_of(7))
    assert scores["top_5_accuracy"] == pytest.approx(5 / 7)
    assert scores["accuracy"] == pytest.approx(1 / 7)


def test_a_certain_error_costs_a_finite_log_loss() -> None:
    loss = classes.single_label(np.array([[1.0, 0.0]], np.float32), np.array([1]), names_of(2))["log_loss"]
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_many_classes_have_no_matrix() -> None:
    count = classes.LARGEST_MATRIX + 1
    chances = np.eye(count)[[0, 1, 2]]
    scores = classes.single_label(chances, np.array([0, 1, 1]), names_of(count))
    assert scores["confusion_matrix"] is None
    assert scores["accuracy"] == pytest.approx(2 / 3)


def test_not_finite_probabilities_are_wrong_and_counted() -> None:
    chances = np.array([[0.9, 0.1], [np.nan, np.nan], [0.1, 0.9], [np.inf, 0.0]])
    scores = classes.single_label(chances, np.array([0, 0, 1, 0]), names_of(2))
    assert scores["accuracy"] == 0.5
    assert scores["not_finite"] == 2
    assert scores["log_loss"] is None
    assert scores["calibration_error"] is None
    assert scores["confusion_matrix"] == [[1, 0], [0, 1]]
    json.dumps(scores, allow_nan=False)
    wide = classes.single_label(np.full((3, 7), np.nan), np.zeros(3, int), names_of(7))
    assert wide["top_5_accuracy"] == 0
    scores = classes.multi_label(chances, np.array([[1, 0], [0, 0], [0, 1], [1, 0]]), [0.5, 0.5], names_of(2))
    assert scores["exact_match"] == 0.5
    assert scores["hamming_loss"] == 0.5
    json.dumps(scores, allow_nan=False)
    scores = classes.ordinal(np.full((2, 3), np.nan), np.array([0, 1]), ["1", "2", "3"])
    assert scores["accuracy"] == 0
    assert scores["mean_absolute_error"] == 1.5
    json.dumps(scores, allow_nan=False)
    json.dumps(intervals.single_label(chances, np.array([0, 0, 1, 0]), names_of(2)), allow_nan=False)


def test_labels_that_never_occur() -> None:
    scores = classes.multi_label(np.full((4, 2), 0.1), np.zeros((4, 2)), [0.5, 0.5], names_of(2))
    assert scores["exact_match"] == 1
    assert scores["macro_f1"] == scores["micro_f1"] == 0
    assert scores["mean_average_precision"] is None
    assert scores["auroc"] is None
    json.dumps(scores, allow_nan=False)


def f1_at(limit: float, scores: np.ndarray, positive: np.ndarray) -> float:
    given = scores >= limit
    return 2 * (given & (positive > 0)).sum() / (given.sum() + positive.sum())


@pytest.mark.parametrize("seed", range(16))
def test_thresholds_give_the_best_f1_of_each_label(seed: int) -> None:
    chances, targets, count = multi_case(seed)
    found = classes.choose_thresholds(chances, targets)
    assert found.dtype == np.float32
    assert ((found > 0) & (found <= 1)).all()
    for c in range(count):
        if targets[:, c].sum() < classes.FEW_POSITIVES:
            continue
        every = [f1_at(limit, chances[:, c], targets[:, c]) for limit in np.unique(chances[:, c])]
        reached = f1_at(found[c], chances[:, c], targets[:, c])
        assert reached == pytest.approx(max(every))


def test_thresholds_lie_between_examples() -> None:
    chances = np.array([[0.1], [0.2], [0.6], [0.8], [0.8], [0.9], [0.9]])
    assert classes.choose_thresholds(chances, chances > 0.5) == pytest.approx([0.4])


def test_thresholds_of_neighbours_in_float32() -> None:
    low = np.float32(0.7)
    for _ in range(4):
        high = np.nextafter(low, np.float32(1))
        chances = np.array([[low]] * 6 + [[high]] * 6, np.float32)
        found = classes.choose_thresholds(chances, np.arange(12)[:, None] >= 6)
        assert ((chances >= found) == (np.arange(12)[:, None] >= 6)).all()
        low = high


def test_thresholds_of_rare_labels_are_borrowed() -> None:
    random = np.random.default_rng(0)
    targets = np.zeros((60, 3))
    targets[:30, 0] = 1
    targets[0, 1] = 1  # one example would set its threshold to its own probability
    chances = np.clip(0.25 + 0.1 * targets + 0.02 * random.normal(size=targets.shape), 0, 1)
    found = classes.choose_thresholds(chances, targets)
    assert found[1] == found[2] == pytest.approx(0.3, abs=0.03)
    assert classes.choose_thresholds(chances, np.zeros((60, 3))) == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(
    ("chances", "targets", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "at least one example"),
        (np.zeros((3, 4)), np.zeros(3, int), r"expected \[examples, 2\]"),
        (np.zeros((3, 2)), np.zeros(4, int), "targets: expected shape"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "whole numbers from 0 to 1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), "float64 from"),
    ],
)
def test_wrong_arrays_are_named(chances: np.ndarray, targets: np.ndarray, message: str) -> None:
    for metric in (classes.single_label, classes.ordinal):
        with pytest.raises(ValueError, match=message):
            metric(chances, targets, names_of(2))


def test_wrong_thresholds_are_named() -> None:
    with pytest.raises(ValueError, match="thresholds: expected one a label"):
        classes.multi_label(np.zeros((2, 2)), np.zeros((2, 2)), [0.5], names_of(2))


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        right = (random.random(200) < 0.8).astype(int)
        low, high = intervals.single_label(np.eye(2)[right], np.ones(200, int), names_of(2), 300, seed)["accuracy"]
        inside += low <= 0.8 <= high
    assert 0.89 <= inside / 200 <= 0.985


@pytest.mark.parametrize("seed", range(4))
def test_count_intervals_are_those_of_drawn_examples(seed: int) -> None:
    chances, targets, count = single_case(seed)
    chances, targets = np.tile(chances, (3, 1)), np.tile(targets, 3)
    quick = intervals.single_label(chances, targets, names_of(count), 2000, 1)

    def slow(key: str, p: np.ndarray, t: np.ndarray) -> float:
        return classes.single_label(p, t, names_of(count))[key]

    for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        plain = intervals.bootstrap(lambda p, t, key=key: slow(key, p, t), (chances, targets), 200, 2)
        np.testing.assert_allclose(quick[key], plain, atol=0.035 if key != "log_loss" else 0.1)


def test_multi_label_intervals_are_those_of_drawn_examples() -> None:
    chances, targets, count = multi_case(3)
    chances, targets = np.tile(chances, (3, 1)), np.tile(targets, (3, 1))
    limits = [0.5] * count
    quick = intervals.multi_label(chances, targets, limits, names_of(count), 2000, 1)
    for key in ("macro_f1", "micro_f1", "exact_match", "hamming_loss"):
        plain = intervals.bootstrap(
            lambda p, t, key=key: classes.multi_label(p, t, limits, names_of(count))[key], (chances, targets), 200, 2
        )
        np.testing.assert_allclose(quick[key], plain, atol=0.02)


def test_ordinal_intervals_are_those_of_drawn_examples() -> None:
    chances, targets, count = single_case(5)
    chances, targets = np.tile(chances, (3, 1)), np.tile(targets, 3)
    ratings = [str(c) for c in range(count)]
    quick = intervals.ordinal(chances, targets, ratings, 2000, 1)
    for key in ("mean_absolute_error", "quadratic_kappa"):
        plain = intervals.bootstrap(
            lambda p, t, key=key: classes.ordinal(p, t, ratings)[key], (chances, targets), 200, 2
        )
        np.testing.assert_allclose(quick[key], plain, atol=0.1)


def test_intervals_are_of_their_seed_and_around_the_score() -> None:
    chances, targets, count = single_case(7)
    one, two, other = (intervals.single_label(chances, targets, names_of(count), seed=s) for s in (0, 0, 1))
    assert one == two
    assert one != other
    scores = classes.single_label(chances, targets, names_of(count))
    for key, (low, high) in one.items():
        assert low <= scores[key] + 0.05
        assert scores[key] - 0.05 <= high
        assert low < high


def test_intervals_of_undefined_scores() -> None:
    assert intervals.bootstrap(lambda a: None, (np.arange(5),), 10) is None
    assert intervals.bootstrap(lambda a: float(a.mean()), (np.ones(5),), 10) == (1.0, 1.0)
    with pytest.raises(ValueError, match="arrays: expected"):
        intervals.bootstrap(lambda a: 0.0, (np.zeros(0),))
    with pytest.raises(ValueError, match="arrays: expected"):
        intervals.bootstrap(lambda a, b: 0.0, (np.zeros(3), np.zeros(4)))


def test_intervals_of_ten_thousand_examples_are_quick() -> None:
    random = np.random.default_rng(0)
    chances = random.dirichlet(np.ones(10), 10_000)
    started = time.process_time()
    intervals.single_label(chances, random.integers(0, 10, 10_000), names_of(10))
    assert time.process_time() - started < 3

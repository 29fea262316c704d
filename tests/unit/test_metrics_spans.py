"""SQuAD's exact match and F1 on the edges of their definition, and the no-answer threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_transfer.metrics import spans


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Eiffel\tTower.\n", "eiffel tower"),
        ("an apple a day, the doctor", "apple day doctor"),
        ("U.S.", "us"),
        ("semi-final", "semifinal"),
        ("theatre another anthem", "theatre another anthem"),
        ("THE A AN", ""),
        ("a.b", "ab"),  # punctuation goes first, so that this "a" is no article
        ("the-end", "theend"),
        ("$1,000.50", "100050"),
        ("Beyoncé’s", "beyoncé’s"),  # a typographic apostrophe is not ASCII punctuation
        ("«the» word", "« » word"),
        ("ÀÉ\u00a0Ü", "àé ü"),  # a no-break space is white space
        ("中国,北京。", "中国北京。"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert spans.normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        ("the Eiffel Tower", "Eiffel tower!", 1, 1),
        ("Eiffel", "Eiffel Tower", 0, 2 / 3),
        ("a b b c", "b b b", 0, 2 * 2 / (3 + 3)),  # the article goes; a word counts as often as it is in both
        ("red", "blue", 0, 0),
        ("", "blue", 0, 0),
        ("blue", "", 0, 0),
        ("", "", 1, 1),
        ("the", "", 1, 1),
        ("the", "an", 1, 1),
    ],
)
def test_scores_of_2_0(prediction: str, answer: str, exact: float, f1: float) -> None:
    assert spans.exact_match(prediction, answer) == exact
    assert spans.f1(prediction, answer, "2.0") == pytest.approx(f1)


def test_1_1_gives_no_f1_for_equal_nothing() -> None:
    assert spans.f1("the", "the", "1.1") == 0
    assert spans.exact_match("the", "the") == 1
    assert spans.score_one("the", ["the"], "1.1") == (1.0, 0.0)


def test_the_best_answer_counts_for_each_metric_apart() -> None:
    assert spans.score_one("in 1990", ["1990", "in 1990 or 1991", "In 1990."]) == (1.0, 1.0)
    assert spans.score_one("1990", ["in 1990", "the year 1990 itself"]) == (0.0, pytest.approx(2 / 3))


def test_answers_of_articles_only_are_no_answer_in_2_0() -> None:
    assert spans.score_one("", ["the", "..."], "2.0") == (1.0, 1.0)
    assert spans.score_one("the", ["blue", "the"], "2.0") == (0.0, 0.0)
    assert spans.score_one("the", ["blue", "the"], "1.1") == (1.0, 0.0)


def test_spans_score_of_1_1() -> None:
    scores = spans.spans_score(["Paris", "the cat sat"], [["paris", "Lutetia"], ["cat"]])
    assert scores == {"exact_match": 0.5, "f1": pytest.approx((1 + 2 / 3) / 2)}


def test_spans_score_of_2_0() -> None:
    scores = spans.spans_score(["Paris", "cat sat", "", "dog"], [["paris"], ["cat"], [], []])
    assert scores == {
        "exact_match": 0.5,
        "f1": pytest.approx((1 + 2 / 3 + 1 + 0) / 4),
        "has_answer_exact_match": 0.5,
        "has_answer_f1": pytest.approx(5 / 6),
        "has_answer_examples": 2,
        "no_answer_exact_match": 0.5,
        "no_answer_examples": 2,
    }
    scores = spans.spans_score([""], [[]])
    assert scores["has_answer_f1"] is None
    json.dumps(scores, allow_nan=False)
    assert spans.spans_score(["x"], [["x"]], rules="2.0")["no_answer_exact_match"] is None


def test_spans_score_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        spans.spans_score([], [])
    with pytest.raises(ValueError, match="Received: 1 for 2"):
        spans.spans_score(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="Received: 1 without"):
        spans.spans_score(["a"], [[]], rules="1.1")


def mean_score(
    threshold: float, differences: np.ndarray, correct: np.ndarray, answerable: np.ndarray, answered: np.ndarray
) -> float:
    """What a threshold gives, question by question."""
    silent = differences > threshold
    return float(
        np.where(
            silent | ~answered,
            np.where(silent & answerable, 0, np.where(answerable, correct, 1)),
            np.where(answerable, correct, 0),
        ).mean()
    )


@pytest.mark.parametrize("seed", range(20))
def test_no_answer_threshold_is_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 60))
    answerable = random.random(n) < random.uniform(0, 1)
    differences = np.round(random.normal(size=n) - 2 * answerable, 1 if seed % 2 else 6)
    correct = np.where(answerable, random.integers(0, 3, n) / 2, 0)
    answered = random.random(n) < 0.9
    correct[~answered] = 0
    threshold, score = spans.choose_no_answer_threshold(differences, correct, answerable, answered)
    reached = mean_score(threshold, differences, correct, answerable, answered)
    assert score == pytest.approx(reached)
    every = [-1e9, 1e9, *(differences - 1e-7), *(differences + 1e-7)]
    assert reached == pytest.approx(max(mean_score(t, differences, correct, answerable, answered) for t in every))


def test_no_answer_threshold_lies_between_questions() -> None:
    answerable = np.array([True, True, False, False])
    threshold, score = spans.choose_no_answer_threshold([-5, -1, 3, 4], [1, 1, 0, 0], answerable)
    assert (threshold, score) == (1.0, 1.0)


def test_no_answer_threshold_answers_where_it_makes_no_difference() -> None:
    threshold, score = spans.choose_no_answer_threshold([-2.0, 1.0, 4.0], [1, 0, 0], [True, True, True])
    assert threshold > 4
    assert score == pytest.approx(1 / 3)


def test_no_answer_threshold_without_questions_of_a_kind() -> None:
    everything, score = spans.choose_no_answer_threshold([-2.0, 5.0], [1, 0.5], [True, True])
    assert everything > 5
    assert score == 0.75
    nothing, score = spans.choose_no_answer_threshold([-2.0, 5.0], [0, 0], [False, False])
    assert nothing < -2
    assert score == 1.0


def test_no_answer_threshold_is_finite_and_names_what_does_not_fit() -> None:
    threshold, _ = spans.choose_no_answer_threshold([-np.inf, np.inf], [1, 0], [True, False])
    assert np.isfinite(threshold)
    with pytest.raises(ValueError, match="same number"):
        spans.choose_no_answer_threshold([1.0], [1, 0], [True, False])
    with pytest.raises(ValueError, match="Received: 1 NaN"):
        spans.choose_no_answer_threshold([np.nan], [1], [True])

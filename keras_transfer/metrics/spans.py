"""Metrics of answer spans: exact match and F1 as SQuAD defines them, and the threshold from which nothing is answered.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text (2016), section 6.1; Rajpurkar, Jia and
Liang, Know What You Don't Know: Unanswerable Questions for SQuAD (2018). Shares from 0 to 1, where the official scripts
print percent. The rules of the two versions differ in one case, an answer of nothing but articles and punctuation:
1.1 gives its F1 as 0 even for an equal prediction; 2.0 takes it for no answer at all.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Rules = Literal["1.1", "2.0"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """The text in lower case without ASCII punctuation, English articles and extra white space.

    Punctuation joins what it stood between ("U.S." becomes "us"), an article leaves a gap. Other alphabets' punctuation
    and accents stay, as in the official scripts.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both are equal once normalised, else 0.0."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str, rules: Rules = "2.0") -> float:
    """The harmonic mean of precision and recall over normalised words, each counted as often as it occurs in both."""
    found, wanted = normalise(prediction).split(), normalise(answer).split()
    if rules == "2.0" and (not found or not wanted):
        return float(found == wanted)
    same = (Counter(found) & Counter(wanted)).total()
    return 2 * same / (len(found) + len(wanted)) if same else 0.0


def score_one(prediction: str, answers: Sequence[str], rules: Rules = "2.0") -> tuple[float, float]:
    """Exact match and F1 of one question: the best over its answers; no answers is the empty one."""
    if rules == "2.0":
        answers = [answer for answer in answers if normalise(answer)]
    answers = answers or [""]
    return max(exact_match(prediction, a) for a in answers), max(f1(prediction, a, rules) for a in answers)


def spans_score(
    predictions: Sequence[str], references: Sequence[Sequence[str]], rules: Rules | None = None
) -> dict[str, Any]:
    """SQuAD's exact match and F1.

    Args:
        predictions: one answer a question, "" for none.
        references: the acceptable answers of each question, none where it cannot be answered.
        rules: `1.1` or `2.0`; None is 2.0 where some question has no answer, else 1.1.

    Returns:
        `exact_match`, `f1`; with rules 2.0 also `has_answer_exact_match`, `has_answer_f1`, `has_answer_examples`,
        `no_answer_exact_match`, `no_answer_examples` (a metric is None where there is no such question).

    Raises:
        ValueError: without questions, for unequal lengths, or with rules 1.1 for a question without an answer.
    """
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(
            "predictions: expected one a reference, at least one. "
            f"Received: {len(predictions)} for {len(references)} references."
        )
    answerable = np.array([len(answers) > 0 for answers in references])
    rules = rules or ("1.1" if answerable.all() else "2.0")
    if rules == "1.1" and not answerable.all():
        raise ValueError(
            "references: expected an answer to every question under the rules 1.1. "
            f"Received: {(~answerable).sum()} without. Use the rules 2.0."
        )
    each = np.array([score_one(*pair, rules) for pair in zip(predictions, references, strict=True)])
    scores: dict[str, Any] = {"exact_match": float(each[:, 0].mean()), "f1": float(each[:, 1].mean())}
    if rules == "2.0":
        scores |= {
            "has_answer_exact_match": _mean(each[answerable, 0]),
            "has_answer_f1": _mean(each[answerable, 1]),
            "has_answer_examples": int(answerable.sum()),
            "no_answer_exact_match": _mean(each[~answerable, 0]),
            "no_answer_examples": int((~answerable).sum()),
        }
    return scores


def choose_no_answer_threshold(
    null_scores_minus_best: Any, correct: Any, answerable: Any, answered: Any = None
) -> tuple[float, float]:
    """The threshold with the best mean score on validation: nothing is answered where the difference is above it.

    It lies midway between two differences that occurred; of equally good ones the highest is taken, which answers most.

    Args:
        null_scores_minus_best: float [n], the score of "no answer" less that of the best span.
        correct: float [n], exact match or F1 of the best span, 0 to 1.
        answerable: bool [n], whether the question has an answer.
        answered: bool [n], whether the best span has any text; None is always. A span of no text is "no answer" too.

    Returns:
        The threshold (finite), and the mean score with it.

    Raises:
        ValueError: without questions, for unequal lengths, or for differences that are NaN.
    """
    differences = np.asarray(null_scores_minus_best, np.float64)
    gains, has = np.asarray(correct, np.float64), np.asarray(answerable, bool)
    spoken = np.ones(len(has), bool) if answered is None else np.asarray(answered, bool)
    if not len(differences) or not len(differences) == len(gains) == len(has) == len(spoken):
        raise ValueError(
            "null_scores_minus_best, correct, answerable: expected the same number of questions, at least one. "
            f"Received: {len(differences)}, {len(gains)}, {len(has)}."
        )
    if np.isnan(differences).any():
        raise ValueError(f"null_scores_minus_best: expected numbers. Received: {np.isnan(differences).sum()} NaN.")
    differences = np.nan_to_num(differences)
    # With no question answered, those without an answer are right; each answered one adds or takes away.
    change = np.where(has, gains, np.where(spoken, -1.0, 0.0))
    order = np.argsort(differences, kind="stable")
    ranked = differences[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    totals = np.concatenate([[0.0], np.cumsum(change[order])[last]]) + (~has).sum()
    distinct = ranked[last]
    cuts = np.concatenate([[distinct[0] - 1.0], (distinct[1:] + distinct[:-1]) / 2, [distinct[-1] + 1.0]])
    best = int(np.flatnonzero(totals >= totals.max() - 1e-9)[-1])
    return float(cuts[best]), float(totals[best] / len(differences))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
